"""Pictures of 3 MiB from one process to another: as base64 in a JSON line, as a raw frame, and through shared memory.

Each side holds the picture in memory: of JSON and frames, the receiver ends with the bytes in memory of its own; of shared
memory, it maps the file under /dev/shm by the name that it was handed (each file once: makers use a few in turn), and reads
every byte of each picture where it lies (CRC-32).
Two results: frames, and shared memory, each against JSON.
"""

import asyncio
import base64
import json
import mmap
import os
import platform
import subprocess
import sys
import tempfile
from collections.abc import Callable, Generator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

from isal import isal_zlib

from bench.measure import interleave, ratio, result, spread
from bench.picture_source import PICTURES, pictures
from server.stdio.channel import FrameChannel
from server.stdio.child import ChildProcess

SIZE = 3 * 1024 * 1024
COUNT = 16
ROUNDS = 15
_MEMORY = Path("/dev/shm")


def command(*arguments: str) -> list[str]:
    """The process that has the pictures."""
    return [sys.executable, "-m", "bench.picture_source", *arguments]


class Lines:
    """A source that answers with lines."""

    def __init__(self, *arguments: str) -> None:
        self.process = subprocess.Popen(
            command(*arguments), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1024 * 1024
        )

    def ask(self, count: int) -> Generator[str]:
        """So many lines."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(f"{count}\n")
        self.process.stdin.flush()
        for _ in range(count):
            yield self.process.stdout.readline()

    def close(self) -> None:
        """End it."""
        self.process.kill()
        self.process.communicate()


def as_json(source: Lines, count: int) -> Generator[bytes]:
    """Each picture's bytes."""
    return (base64.b64decode(json.loads(line)["data"]) for line in source.ask(count))


def as_shared(source: Lines, count: int) -> int:
    """How many pictures had the bytes that their maker told."""
    return sum(_is_whole(json.loads(line)) for line in source.ask(count))


def _is_whole(told: dict[str, object]) -> bool:
    return isal_zlib.crc32(_mapped(str(told["path"]))) == told["crc32"]


@cache
def _mapped(path: str) -> mmap.mmap:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        return mmap.mmap(descriptor, SIZE, access=mmap.ACCESS_READ)
    finally:
        os.close(descriptor)


class Frames:
    """A source that answers with raw frames."""

    def __init__(self, runner: asyncio.Runner) -> None:
        self._runner = runner
        self.process, self._channel = runner.run(self._start())

    @staticmethod
    async def _start() -> tuple[ChildProcess, FrameChannel]:
        process = await ChildProcess.start(*command("frames", str(SIZE)))
        return process, FrameChannel(process)

    def take(self, count: int, each: Callable[[bytes], object]) -> None:
        """So many pictures' bytes."""
        self._runner.run(self._take(count, each))

    async def _take(self, count: int, each: Callable[[bytes], object]) -> None:
        call = await self._channel.open("/bench/Pictures", str(count).encode(), half_close=True)
        async for payload in call:
            each(payload.data)

    def close(self) -> None:
        """End it."""
        self.process.kill()
        self._runner.run(self.process.wait())
        self.process.close()


@contextmanager
def sources() -> Generator[tuple[Lines, Frames, Lines]]:
    """All three, started."""
    with tempfile.TemporaryDirectory(dir=_MEMORY) as folder, asyncio.Runner() as runner:
        started = Lines("json", str(SIZE)), Frames(runner), Lines("shared", str(SIZE), folder)
        try:
            yield started
        finally:
            for source in started:
                source.close()


def main() -> int:
    """Print both ratios."""
    if not _MEMORY.is_dir():
        print(f"{_MEMORY} is not there: this bench needs Linux")
        return 0
    made = pictures(SIZE)
    expected = [made[number % PICTURES] for number in range(COUNT)]
    with sources() as (lines, frames, shared):
        framed: list[bytes] = []
        frames.take(COUNT, framed.append)
        equal = {
            "json equal": list(as_json(lines, COUNT)) == expected,
            "frames equal": framed == expected,
            "shared equal": as_shared(shared, COUNT) == COUNT,
        }
        samples = interleave(
            {
                "json": lambda: sum(map(len, as_json(lines, COUNT))),
                "frames": lambda: frames.take(COUNT, len),
                "shared": lambda: as_shared(shared, COUNT),
            },
            ROUNDS,
        )
    speeds = {
        f"{name} MB/s": spread([COUNT * SIZE / seconds / 1e6 for seconds in taken]) for name, taken in samples.items()
    }
    peer = f"base64 in JSON lines, Python {platform.python_version()}"
    details = {"picture bytes": SIZE, "pictures a round": COUNT, **speeds}
    statuses = [
        result(name, ratio(samples["json"], samples[key]), target=target, peer=peer, conditions=equal, details=details)
        for name, key, target in (("stdio_frames", "frames", 14.0), ("shared_memory", "shared", 60.0))
    ]
    return max(statuses)


if __name__ == "__main__":
    raise SystemExit(main())
