"""Watches that are opened, heard once and left: what each costs the server's memory for ever.

python -m bench.attacks.leavers [COUNT]      1,000,000 where no count is given

grpc.aio lost 155 bytes with each cancelled server stream in 1.84 (reported upstream as a leak of cancelled streams). The
figure is the slope over the second half, when every pool and cache has its size.
"""

import struct
import sys
import time

import psutil

from bench.attacks.harness import WATCH, tell
from bench.attacks.wire import Kind, Wire, data, frame, headers, reset
from tests.server.harness import running_server

COUNT = 1_000_000
_BATCH = 100
_LOOKS = 20


def left(wire: Wire, first: int, count: int) -> int:
    """Open so many watches, wait until each has told something, and leave them all; the next call's number."""
    streams = {2 * number + 1 for number in range(first, first + count)}
    wire.send(*(headers(stream, WATCH) + data(stream, b"") for stream in sorted(streams)))
    waiting, received = set(streams), 0
    while waiting:
        found = wire.next_frame(60)
        if found is None:
            raise TimeoutError(f"{len(waiting)} watches told nothing")
        if found.kind == Kind.DATA:
            received += len(found.payload)
        if found.kind in (Kind.DATA, Kind.RST_STREAM):
            # A reset: the server had not yet ended as many of the calls before.
            waiting.discard(found.stream)
    wire.send(*(reset(stream) for stream in streams))
    if received:
        wire.send(frame(Kind.WINDOW_UPDATE, 0, struct.pack(">I", received)))
    return first + count


def main() -> int:
    """Print the memory after every twentieth of the watches, and the slope."""
    count = int(sys.argv[1]) if len(sys.argv) > 1 else COUNT
    looks: list[int] = []
    with running_server("--device", "sim") as server, Wire(server.address) as wire:
        process = psutil.Process(server.process.pid)
        begin, number = time.perf_counter(), 0
        for look in range(1, _LOOKS + 1):
            while number < count * look // _LOOKS:
                number = left(wire, number, _BATCH)
            looks.append(int(process.memory_info().rss))
    half = _LOOKS // 2
    slope = (looks[-1] - looks[half - 1]) / (count / 2)
    seconds = time.perf_counter() - begin
    sizes = [round(size / 2**20, 1) for size in looks]
    return tell("leavers", watches=number, seconds=seconds, bytes_per_watch=slope, resident_mib=sizes)


if __name__ == "__main__":
    raise SystemExit(main())
