"""The `deviceops` program. It talks to a server through the contract alone, and never imports torch."""


def main() -> None:
    """Run the command line and exit with its code."""
    from server.cli.console import streams

    # First: the imports below may open files.
    streams.prepare()
    from server.cli.app import run

    raise SystemExit(streams.settle(run()))
