"""Groups of commands whose bare name lists: `deviceops memory` prints a table, `deviceops memory budget …` acts."""

import typer

from server.cli.console.failure import USAGE, CliError


def lists_only(context: typer.Context) -> bool:
    """Whether no subcommand follows, so that the command lists.

    Raises `CliError` (usage) for flags before a subcommand: the subcommand would ignore them, and with a lost `--address`
    go to another server.
    """
    if context.invoked_subcommand is None:
        return True
    sources = {name: context.get_parameter_source(name) for name in context.params}
    lost = [name for name, source in sources.items() if source is not None and source.name == "COMMANDLINE"]
    if lost:
        flags = ", ".join(f"--{name.replace('_', '-')}" for name in lost)
        raise CliError(f"{flags} must come after `{context.invoked_subcommand}`", USAGE)
    return False
