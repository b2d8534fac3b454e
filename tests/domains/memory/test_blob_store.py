"""BlobStore: one file for each content, kept as long as somebody needs it, never half of one."""

import errno
import hashlib
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from domains.descriptors import write_at
from domains.errors import DataLoss, DeviceOpsError, ErrorReason, InternalError, NotFound
from domains.memory.blobs.blob import Blob, blob_id
from domains.memory.blobs.store import BlobStore
from domains.storage import open_database
from tests.domains.memory.scratch import scratch_folder


@pytest.fixture
def store(tmp_path: Path) -> Iterator[BlobStore]:
    connection = open_database(tmp_path)
    yield BlobStore(connection, tmp_path / "blobs")
    connection.close()


def keep(store: BlobStore, data: bytes, owner: str) -> Blob:
    return store.adopt(store.files.write(data), len(data), "image/png", owner)


def content(store: BlobStore, name: str) -> bytes:
    blob, descriptor = store.open(name)
    with os.fdopen(descriptor, "rb") as file:
        data = file.read()
    assert len(data) == blob.size_bytes
    return data


def files(store: BlobStore) -> set[str]:
    return {file.name for file in store.files.folder.glob("*/*")}


def test_a_blob_is_named_by_its_content(store: BlobStore) -> None:
    blob = keep(store, b"picture", "job-1")
    assert blob.sha256 == hashlib.sha256(b"picture").hexdigest()
    assert blob.id == blob_id(blob.sha256)
    assert content(store, blob.id) == b"picture"


def test_the_same_bytes_of_two_jobs_are_one_file_until_both_are_gone(store: BlobStore) -> None:
    first, second = keep(store, b"same", "job-1"), keep(store, b"same", "job-2")
    assert first == second
    assert len(files(store)) == 1
    assert store.release("job-1") == 0
    assert content(store, first.id) == b"same"
    assert store.release("job-2") == len(b"same")
    assert files(store) == set()
    with pytest.raises(NotFound) as told:
        store.get(first.id)
    assert told.value.reason is ErrorReason.BLOB_NOT_FOUND


def test_releasing_twice_frees_once(store: BlobStore) -> None:
    keep(store, b"bytes", "job-1")
    assert store.release("job-1") == 5
    assert store.release("job-1") == 0


def test_a_reader_who_has_it_open_reads_to_the_end(store: BlobStore) -> None:
    blob = keep(store, b"long enough", "job-1")
    _, descriptor = store.open(blob.id)
    store.release("job-1")
    with os.fdopen(descriptor, "rb") as file:
        assert file.read() == b"long enough"


def test_half_a_file_that_a_crash_left_is_swept_and_no_blob_with_it(store: BlobStore) -> None:
    blob = keep(store, b"whole", "job-1")
    sha256 = hashlib.sha256(b"never renamed").hexdigest()
    half = store.files.path(sha256).with_suffix(".4711-1")
    half.parent.mkdir(exist_ok=True)
    half.write_bytes(b"never")
    unnamed = store.files.path(store.files.write(b"renamed, but the row was never written"))
    assert store.sweep(lambda owner: True) == 2
    assert not half.exists()
    assert not unnamed.exists()
    assert content(store, blob.id) == b"whole"
    assert store.sweep(lambda owner: True) == 0


def test_a_half_file_under_the_good_name_is_written_again(store: BlobStore) -> None:
    path = store.files.path(hashlib.sha256(b"whole content").hexdigest())
    path.parent.mkdir(parents=True)
    path.write_bytes(b"whole")
    assert content(store, keep(store, b"whole content", "job-1").id) == b"whole content"


@pytest.mark.parametrize("damage", ["gone", "shorter", "longer"])
def test_a_damaged_file_is_told_and_not_sent(store: BlobStore, damage: str) -> None:
    blob = keep(store, b"picture", "job-1")
    path = store.files.path(blob.sha256)
    if damage == "gone":
        path.unlink()
    else:
        path.write_bytes(b"pict" if damage == "shorter" else b"picture and more")
    with pytest.raises(DataLoss) as told:
        store.open(blob.id)
    assert told.value.reason is ErrorReason.BLOB_CORRUPT


def test_a_failed_write_leaves_nothing(store: BlobStore) -> None:
    # A folder where the file should go: renaming onto it fails as any broken disk would.
    path = store.files.path(hashlib.sha256(b"data").hexdigest())
    path.mkdir(parents=True)
    with pytest.raises(InternalError) as told:
        store.files.write(b"data")
    assert told.value.reason is ErrorReason.STORAGE_FAILED
    assert [entry.name for entry in path.parent.iterdir()] == [path.name]


@pytest.mark.parametrize(("error", "reason"), [(errno.ENOSPC, "STORAGE_FULL"), (errno.EIO, "STORAGE_FAILED")])
def test_a_disk_that_fails_in_the_middle_of_a_picture_leaves_nothing(
    store: BlobStore, monkeypatch: pytest.MonkeyPatch, error: int, reason: str
) -> None:
    def fail_later(descriptor: int, data: memoryview, offset: int) -> int:
        if offset:
            raise OSError(error, os.strerror(error))
        return os.write(descriptor, data[:3])

    monkeypatch.setattr("domains.memory.blobs.files.write_at", fail_later)
    with pytest.raises(DeviceOpsError) as told:
        store.files.write(b"picture")
    assert told.value.reason == reason
    assert files(store) == set()


def test_a_picture_that_is_written_in_pieces_is_whole_and_the_servers_alone(
    store: BlobStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("domains.memory.blobs.files.write_at", lambda fd, data, at: write_at(fd, data[:2], at))  # pyright: ignore[reportUnknownLambdaType, reportUnknownArgumentType]
    blob = keep(store, b"picture", "job-1")
    assert content(store, blob.id) == b"picture"
    if os.name == "posix":
        assert store.files.path(blob.sha256).stat().st_mode & 0o777 == 0o600


class Owners(RuleBasedStateMachine):
    """Any order of keeping, releasing, sweeping and reopening: a blob is there exactly while somebody needs it."""

    def __init__(self) -> None:
        super().__init__()
        self.scratch = scratch_folder()
        self.folder = self.scratch.__enter__()
        self.owners: dict[bytes, set[str]] = {}
        self.open()

    def open(self) -> None:
        self.connection = open_database(self.folder)
        self.store = BlobStore(self.connection, self.folder / "blobs")

    @rule(data=st.sampled_from([b"", b"a", b"bb", b"ccc"]), owner=st.sampled_from("xyz"))
    def keep(self, data: bytes, owner: str) -> None:
        keep(self.store, data, owner)
        self.owners.setdefault(data, set()).add(owner)

    @rule(owner=st.sampled_from("xyz"))
    def release(self, owner: str) -> None:
        expected = sum(len(data) for data, owners in self.owners.items() if owners == {owner})
        assert self.store.release(owner) == expected
        for owners in self.owners.values():
            owners.discard(owner)

    @rule()
    def reopen(self) -> None:
        self.connection.close()
        self.open()
        assert self.store.sweep(lambda owner: True) == 0

    @invariant()
    def what_is_needed_is_there(self) -> None:
        needed = {hashlib.sha256(data).hexdigest(): data for data, owners in self.owners.items() if owners}
        assert files(self.store) == set(needed)
        assert all(content(self.store, blob_id(sha256)) == data for sha256, data in needed.items())

    def teardown(self) -> None:
        self.connection.close()
        self.scratch.__exit__(None, None, None)


TestOwners = Owners.TestCase
TestOwners.settings = settings(max_examples=30, stateful_step_count=20, deadline=None)


def test_what_a_deleted_job_left_behind_is_let_go_at_the_next_start(store: BlobStore) -> None:
    kept, lost = keep(store, b"kept", "job-1"), keep(store, b"lost", "job-2")
    store.sweep(lambda owner: owner == "job-1")
    assert content(store, kept.id) == b"kept"
    with pytest.raises(NotFound):
        store.get(lost.id)


async def test_bytes_whose_file_went_away_in_between_are_written_again(
    store: BlobStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    keep(store, b"same", "job-1")
    write = store.files.write

    def write_and_lose_once(data: bytes) -> str:
        sha256 = write(data)
        # What a release on the event loop does while the writer's thread has just seen the file.
        monkeypatch.setattr(store.files, "write", write)
        store.files.path(sha256).unlink()
        return sha256

    monkeypatch.setattr(store.files, "write", write_and_lose_once)
    blob = await store.keep(b"same", "image/png", "job-2")
    assert content(store, blob.id) == b"same"
