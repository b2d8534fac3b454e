"""The `deviceops` program: a person's way in. It speaks to a server by the contract alone, and never imports torch."""


def main() -> None:
    """Run the command line and exit with its code."""
    from server.cli import streams

    # First of all: what is imported below may open files already.
    streams.prepare()
    from server.cli.app import run

    raise SystemExit(streams.settle(run()))
