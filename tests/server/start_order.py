"""What a test asks of the process that servers are forked from."""

import msgspec

PACKET_BYTES = 128 * 1024


class Start(msgspec.Struct, frozen=True):
    """Start a server, or another module that was to be run with `python -m`.

    The descriptors of its stdout and stderr come with the packet, then that of its stdin if it has one, and that of the
    pipe if it is held.
    """

    command: list[str]
    """Its command line."""
    environment: dict[str, str]
    """All of its variables."""
    execs: bool
    """Whether the command is started with `exec`, and not run in a fork that has imported it."""
    held: bool
    """Whether its nursery waits for the end of a pipe before its first answer."""
    stdin: bool = False
    """Whether a descriptor for its stdin comes with the packet."""

    @property
    def serves(self) -> bool:
        """Whether it is a server, which gets a nursery."""
        return self.command[1:3] == ["-m", "server"]
