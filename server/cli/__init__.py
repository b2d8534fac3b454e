"""The `deviceops` program: a person's way in. It speaks to a server by the contract alone, and never imports torch."""


def main() -> None:
    """Run the command line and exit with its code."""
    from server.cli.app import run

    raise SystemExit(run())
