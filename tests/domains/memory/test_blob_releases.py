"""What a blob takes is given back: descriptors after reads, pages after the last reader, notes of readers and hashes."""

import os
import sys
import time
import weakref
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest

from domains.errors import DeviceOpsError
from domains.memory.blobs import host_memory
from domains.memory.blobs.blob import Blob, BlobState, BlobTier, MappedFile
from domains.memory.blobs.hashes import RunningHashes
from domains.memory.blobs.host_memory import HostBytes, HostContent
from domains.memory.blobs.links import BlobLinks, of_model
from domains.memory.blobs.readers import OpenBlobs
from domains.memory.blobs.registration_request import Registration
from domains.memory.blobs.store import BlobStore
from domains.storage import open_database
from tests.domains.memory.blobs import content, sha, uploaded
from tests.open_files import open_within


class CountingBytes(HostBytes):
    """Counts how often a blob is opened to read."""

    def __init__(self) -> None:
        super().__init__()
        self.opened = 0

    async def open(self, blob: Blob) -> HostContent:
        self.opened += 1
        return await super().open(blob)


@pytest.fixture
def now(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    """Sets the time."""
    at = [0.0]
    monkeypatch.setattr(time, "time", lambda: at[0])
    return lambda time_s: at.__setitem__(0, time_s)


def test_each_reader_and_writer_uses_a_blob_when_it_comes_and_when_it_goes(now: Callable[[float], None]) -> None:
    blobs = OpenBlobs()
    assert (blobs.access_s("b"), blobs.is_open("b"), blobs.readers("b")) == (None, False, 0)
    seen: list[tuple[float | None, bool, int]] = []
    for at, step in enumerate(
        (blobs.enter, blobs.enter, blobs.leave, blobs.leave, blobs.take_writer, blobs.give_writer)
    ):
        now(float(at))
        step("b")
        seen.append((blobs.access_s("b"), blobs.is_open("b"), blobs.readers("b")))
    assert seen == [(0, True, 1), (1, True, 2), (2, True, 1), (3, False, 0), (3, True, 0), (5, False, 0)]
    blobs.forget("b")
    assert blobs.access_s("b") is None


async def test_the_time_of_use_goes_with_a_removed_blob(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    used = list[OpenBlobs]()
    make = OpenBlobs.__init__

    def note(self: OpenBlobs) -> None:
        make(self)
        used.append(self)

    monkeypatch.setattr(OpenBlobs, "__init__", note)
    database = open_database(tmp_path)
    blobs = BlobStore(database, tmp_path)
    blob = await uploaded(blobs, b"0123")
    assert await content(blobs, blob.id) == b"0123"
    assert used[0].access_s(blob.id) is not None
    blobs.delete(blob.id)
    assert used[0].access_s(blob.id) is None
    database.close()


def test_one_writer_at_a_time_and_another_one_after_it() -> None:
    blobs = OpenBlobs()
    assert [blobs.take_writer("b"), blobs.take_writer("b"), blobs.take_writer("c")] == [True, False, True]
    blobs.give_writer("b")
    assert blobs.take_writer("b")


def test_a_pair_is_found_from_both_sides_until_it_is_removed() -> None:
    links = BlobLinks([("b-1", "job-1"), ("b-1", of_model("m"))])
    links.add("b-2", "job-1")
    links.add("b-2", "job-1")
    assert (links.owners("b-1"), links.blobs("job-1")) == ({"job-1", of_model("m")}, {"b-1", "b-2"})
    assert links.readers("b-1") == 1, "a model that was registered from a blob does not read it"
    links.remove("b-2", "job-1")
    links.remove("b-3", "job-1")
    links.remove("b-1", of_model("m"))
    assert (links.owners(), links.owners("b-1"), links.owners("b-2")) == ({"job-1"}, {"job-1"}, set())
    links.remove("b-1", "job-1")
    assert (links.owners(), links.blobs("job-1")) == (set(), set())


async def test_pages_of_a_freed_blob_go_with_its_last_reader(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[weakref.ref[memoryview]] = []
    plain = host_memory.aligned_pages

    def noted(size: int, alignment: int) -> memoryview:
        pages = plain(size, alignment)
        made.append(weakref.ref(pages))
        return pages

    monkeypatch.setattr(host_memory, "aligned_pages", noted)
    memory = HostBytes()
    blob = Blob(id="b", sha256="", size_bytes=5, media_type="", create_time_s=0.0, tier=BlobTier.HOST)
    await memory.allocate(blob, 0)
    await memory.write(blob, 1, b"abc")
    reader = await memory.open(blob)
    memory.free(blob)
    assert await reader.read(0, 5, bytes) == b"\0abc\0"
    assert made[0]() is not None
    reader.close()
    assert made[0]() is None


@pytest.mark.skipif(sys.platform != "linux", reason="counts in /proc")
@pytest.mark.parametrize("tier", [BlobTier.DISK, BlobTier.MAPPED])
async def test_a_file_is_closed_after_each_read_also_after_one_that_fails(
    blobs: BlobStore, tmp_path: Path, tier: BlobTier
) -> None:
    if tier is BlobTier.DISK:
        name = (await uploaded(blobs, b"some bytes")).id
        folder = blobs.files.folder
    else:
        folder = tmp_path / "shared"
        (folder / "file").write_bytes(b"some bytes")
        backing = MappedFile(path=str(folder / "file"))
        name = (await blobs.requests.register(Registration(backing=backing))).id
    assert await content(blobs, name) == b"some bytes"
    assert not open_within(folder)
    with suppress(ZeroDivisionError):
        async with blobs.reading(name) as reader:
            assert len(open_within(folder)) == 1
            assert reader.blob.reader_count == 0
            assert blobs.get(name).reader_count == 1
            raise ZeroDivisionError
    assert not open_within(folder)
    assert (blobs.get(name).reader_count, blobs.get(name).state) == (0, BlobState.READY)
    digest = await blobs.sha256_of(name, 2, 6, lambda: None)
    assert (digest, open_within(folder)) == (sha(b"me b"), [])
    for file in folder.rglob("*"):
        if file.is_file():
            os.truncate(file, 4)
    with pytest.raises(DeviceOpsError):
        await content(blobs, name)
    assert not open_within(folder)


async def test_a_hash_that_is_forgotten_is_computed_again() -> None:
    memory, hashes = CountingBytes(), RunningHashes()
    blob = Blob(id="b", sha256="", size_bytes=5, media_type="", create_time_s=0.0, tier=BlobTier.HOST)
    await memory.allocate(blob, 0)
    await memory.write(blob, 0, b"12345")
    for times, size in ((1, 3), (1, 3), (2, 5)):
        assert (await hashes.upto(blob, memory, size)).digest.hexdigest() == sha(b"12345"[:size])
        assert memory.opened == times
    hashes.forget("b")
    hashes.forget("b")
    await hashes.upto(blob, memory, 5)
    assert memory.opened == 3
