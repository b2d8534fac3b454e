"""What a test asks of the process that servers are forked from."""

import msgspec

PACKET_BYTES = 128 * 1024


class Start(msgspec.Struct, frozen=True):
    """Start a server. The descriptors of its stdout and stderr come with the packet, and that of the pipe if it is held."""

    command: list[str]
    """Its command line."""
    environment: dict[str, str]
    """All of its variables."""
    execs: bool
    """Whether the command is started with `exec`, and not run in a fork that has imported it."""
    held: bool
    """Whether its nursery waits for the end of a pipe before its first answer."""
