"""1,000 watches whose clients read nothing and open no window, while the server has much to tell; beside a neighbour."""

import struct
import time

from bench.attacks.harness import WATCH, Neighbour, Peak, tell
from bench.attacks.wire import Wire, data, headers
from tests.server.harness import running_server

WATCHES, PER_CONNECTION = 1000, 250
SECONDS = 20
BUSY = ("--device", "sim", "--heartbeat-s", "0.05")
"""Flags of a server that has something to tell to each watch 20 times a second."""
_NO_WINDOW = struct.pack(">HI", 4, 0)
"""SETTINGS_INITIAL_WINDOW_SIZE of 0: no byte of an answer may be sent."""


def deaf(address: str, watches: int, path: str = WATCH, request: bytes = b"") -> list[Wire]:
    """Connections with so many watches, of which no answer will ever be read."""
    wires: list[Wire] = []
    for first in range(0, watches, PER_CONNECTION):
        wire = Wire(address, settings=_NO_WINDOW, receive_buffer_bytes=4096)
        wires.append(wire)
        for number in range(min(PER_CONNECTION, watches - first)):
            wire.send(headers(2 * number + 1, path), data(2 * number + 1, request))
    return wires


def main() -> int:
    """Print what the neighbour and the memory saw."""
    with running_server(*BUSY) as server:
        peak = Peak(server.process.pid)
        with peak.watched(), Neighbour(server.address) as neighbour:
            wires = deaf(server.address, WATCHES)
            time.sleep(SECONDS)
        for wire in wires:
            wire.close()
        begin = time.perf_counter()
        status = server.stop()
        stop_s = time.perf_counter() - begin
        how = {"exit status": status, "stop s": stop_s}
        return tell("slow_readers", watches=WATCHES, neighbour=neighbour.figures(), memory=peak.figures(), **how)


if __name__ == "__main__":
    raise SystemExit(main())
