"""Pictures of 3 MiB from one process to another: as base64 in a JSON line, as a raw frame, and through shared memory.

Each side holds the picture in memory: of JSON and frames, the receiver ends with the bytes in memory of its own. Through
shared memory the receiver is the server's blob store: the maker's file under /dev/shm is a registered blob (RegisterBlob,
`verify: false`), and every byte of each picture is read (CRC-32). In four ways:

* mapped      registered anew as the next generation before each picture, as a maker does that has rewritten its file; the
              bytes are read where they lie, in pages that were mapped once for each of the few files, as a worker does
* read        registered anew as well; the bytes are read through the store's reader, as ReadBlob and transfers do
* once        each file registered once, then read through the reader
* verified    the same, registered with its hash, so that the store hashes each read of the whole and compares

Two results: frames and mapped, each against JSON; the other ways are details.
"""

import asyncio
import base64
import json
import platform
import subprocess
import sys
import tempfile
from collections.abc import Awaitable, Callable, Generator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path

import msgspec
from isal import isal_zlib

from bench.measure import interleave, ratio, result, spread
from bench.picture_source import PICTURES, pictures
from domains.memory.blobs.blob import Blob, MappedFile
from domains.memory.blobs.mapped import pages
from domains.memory.blobs.registration_request import Registration
from domains.memory.blobs.roots import BlobRoots
from domains.memory.blobs.store import BlobStore
from domains.storage import open_database
from server.stdio.channel import FrameChannel
from server.stdio.child import ChildProcess

SIZE = 3 * 1024 * 1024
COUNT = 16
ROUNDS = 15
_MEMORY = Path("/dev/shm")
TARGETS = (
    ("stdio_frames", "frames", 14.0),
    ("shared_memory", "mapped", 60.0),
)
"""Result, contestant, and how many times faster than JSON it must be."""


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


class Told(msgspec.Struct, frozen=True):
    """What the maker of a shared picture says of it."""

    path: str
    size: int
    crc32: int
    generation: int

    @property
    def name(self) -> str:
        """Of its file."""
        return Path(self.path).name


class Shared:
    """A source that hands over names, and the store in which its files are registered."""

    def __init__(self, runner: asyncio.Runner, source: Lines, folder: Path) -> None:
        self._runner = runner
        self._source = source
        self._known: dict[str, Blob] = {}
        self._pages: dict[str, memoryview] = {}
        self._kept = ExitStack()
        """Of the mappings."""
        self._roots = BlobRoots([folder])
        self._state = tempfile.TemporaryDirectory()
        self._database = open_database(Path(self._state.name))
        self.ways = {"mapped": self.mapped, "read": self.read, "once": self.once, "verified": self.verified}
        self._store = BlobStore(self._database, Path(self._state.name) / "blobs", roots=self._roots)

    def run(self, count: int, take: Callable[[Told], Awaitable[int]]) -> int:
        """How many of so many pictures had the bytes that their maker told."""
        return self._runner.run(self._run(count, take))

    async def _run(self, count: int, take: Callable[[Told], Awaitable[int]]) -> int:
        told = (msgspec.json.decode(line, type=Told) for line in self._source.ask(count))
        return sum([await take(picture) == picture.crc32 for picture in told])

    async def mapped(self, told: Told) -> int:
        """Registered anew, read in place."""
        await self._register(told, "mapped")
        if told.path not in self._pages:
            self._pages[told.path] = self._kept.enter_context(pages(Path(told.path), 0, told.size, self._roots))
        return isal_zlib.crc32(self._pages[told.path])

    async def read(self, told: Told) -> int:
        """Registered anew, read through the reader."""
        return await self._read(await self._register(told, "read"))

    async def once(self, told: Told) -> int:
        """Registered once."""
        return await self._read(self._known.get(f"once-{told.name}") or await self._register(told, "once"))

    async def verified(self, told: Told) -> int:
        """Registered once, hashed then and at each read."""
        known = self._known.get(f"verified-{told.name}")
        return await self._read(known or await self._register(told, "verified", verify=True))

    async def _register(self, told: Told, way: str, *, verify: bool = False) -> Blob:
        name, backing = f"{way}-{told.name}", MappedFile(path=told.path)
        asked = Registration(blob_id=name, backing=backing, generation=told.generation, verify=verify)
        self._known[name] = await self._store.requests.register(asked)
        return self._known[name]

    async def _read(self, blob: Blob) -> int:
        async with self._store.reading(blob.id) as reader:
            return await reader.read(0, blob.size_bytes, isal_zlib.crc32)

    def close(self) -> None:
        """End it."""
        self._source.close()
        self._pages.clear()
        self._kept.close()
        self._database.close()
        self._state.cleanup()


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
def sources() -> Generator[tuple[Lines, Frames, Shared]]:
    """All three, started."""
    with tempfile.TemporaryDirectory(dir=_MEMORY) as folder, asyncio.Runner() as runner:
        shared = Shared(runner, Lines("shared", str(SIZE), folder), Path(folder))
        started = Lines("json", str(SIZE)), Frames(runner), shared
        try:
            yield started
        finally:
            for source in started:
                source.close()


def main() -> int:
    """Print the ratios."""
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
            **{f"{way} equal": shared.run(COUNT, take) == COUNT for way, take in shared.ways.items()},
        }
        samples = interleave(
            {
                "json": lambda: sum(map(len, as_json(lines, COUNT))),
                "frames": lambda: frames.take(COUNT, len),
                **{way: partial(shared.run, COUNT, take) for way, take in shared.ways.items()},
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
        for name, key, target in TARGETS
    ]
    return max(statuses)


if __name__ == "__main__":
    raise SystemExit(main())
