"""Groups of commands whose bare name lists: `deviceops memory` is a table, `deviceops memory budget …` a deed."""

import typer

from server.cli.failure import USAGE, CliError


def lists_only(context: typer.Context) -> bool:
    """Whether no verb follows, so that the bare name shall list.

    Raises `CliError` (usage) for flags before a verb: they would be lost, and an `--address` among them would send the
    verb to another server.
    """
    if context.invoked_subcommand is None:
        return True
    sources = {name: context.get_parameter_source(name) for name in context.params}
    lost = [name for name, source in sources.items() if source is not None and source.name == "COMMANDLINE"]
    if lost:
        flags = ", ".join(f"--{name.replace('_', '-')}" for name in lost)
        raise CliError(f"{flags} must come after `{context.invoked_subcommand}`", USAGE)
    return False
