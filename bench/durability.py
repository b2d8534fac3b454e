"""The price of `durability = "power"`: calls that store something, on two servers that differ in this setting alone.

python -m bench.durability [CALLS]      300 where no count is given

The servers are asked in turns, so that other programs and the disk slow both.
"""

import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

from bench.attacks.harness import tell
from deviceops.memory.v1 import blob_pb2, memory_service_pb2
from tests.server import asking
from tests.server.harness import RunningServer

CALLS = 300
PICTURES_EACH = 10
"""Calls for each whole picture, which takes longer."""
LEVELS = ("process", "power")


def upload(server: RunningServer, number: int) -> None:
    """64 KiB to the disk."""
    spec = blob_pb2.BlobSpec(size_bytes=1 << 16, tier=blob_pb2.BLOB_TIER_DISK)
    chunk = blob_pb2.BlobChunk(data=number.to_bytes(8, "big") * (1 << 13))
    requests = [
        memory_service_pb2.UploadBlobRequest(blob_spec=spec),
        memory_service_pb2.UploadBlobRequest(chunk=chunk),
    ]
    server.memory.UploadBlob(iter(requests), timeout=asking.CALL_S)


def picture(server: RunningServer, number: int) -> None:
    """From the submission to the end of a picture of a simulated device."""
    asking.watch(server, asking.submit(server, asking.picture(steps=1, seed=number)))


WORK: dict[str, tuple[Callable[[RunningServer, int], None], int]] = {
    "UploadBlob, 64 KiB": (upload, 1),
    "a picture of one step, whole": (picture, PICTURES_EACH),
}


def times(
    servers: dict[str, RunningServer], work: Callable[[RunningServer, int], None], calls: int
) -> dict[str, float]:
    """Milliseconds of a call, the median, by level."""
    seconds: dict[str, list[float]] = {level: [] for level in LEVELS}
    for number in range(calls):
        for level, server in servers.items():
            begin = time.perf_counter()
            work(server, number)
            seconds[level].append(time.perf_counter() - begin)
    return {level: 1000 * statistics.median(found) for level, found in seconds.items()}


def main() -> int:
    """Print both levels' medians and their ratio."""
    calls = int(sys.argv[1]) if len(sys.argv) > 1 else CALLS
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        servers = dict[str, RunningServer]()
        for level in LEVELS:
            flags = ["--device", "sim", "--durability", level]
            servers[level] = RunningServer(folder / level, flags, {})
            stack.callback(servers[level].close)
            picture(servers[level], 1_000_000)
        found = dict[str, object]()
        for name, (work, each) in WORK.items():
            ms = times(servers, work, calls // each)
            found[name] = {
                **{f"{level} ms": value for level, value in ms.items()},
                "ratio": ms["power"] / ms["process"],
            }
    return tell("durability", calls=calls, **found)


if __name__ == "__main__":
    raise SystemExit(main())
