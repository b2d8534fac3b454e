"""What a test asks of the process that servers are forked from."""

import msgspec

PACKET_BYTES = 128 * 1024


class Start(msgspec.Struct, frozen=True):
    """Start a server. The descriptor of its stdout comes with the packet, and those of the two below."""

    command: list[str]
    """Its command line."""
    environment: dict[str, str]
    """All of its variables."""
    has_stderr: bool
    """False: it starts with a closed stderr."""
    held: bool
    """Whether its nursery waits for the end of a pipe before its first answer."""
