"""After a loss of power no READY blob has other bytes, and what was lost is told."""

import errno
import hashlib
import os
import stat
import sys
from pathlib import Path

import pytest

from domains import storage
from domains.errors import DataLoss, ErrorReason, InternalError
from domains.memory.blobs import power_loss
from domains.memory.blobs.blob import Blob, BlobSpec, BlobState, BlobTier
from domains.memory.blobs.files import BlobFiles, file_name
from domains.memory.blobs.store import BlobStore
from tests.domains.memory.blobs import content, uploaded
from tests.open_files import open_within

CONTENTS = (b"first picture", b"second picture")


async def made(blobs: BlobStore) -> list[Blob]:
    return [await blobs.keep(CONTENTS[0], "image/png", "job-1"), await uploaded(blobs, CONTENTS[1])]


def restarted(blobs: BlobStore) -> list[Blob]:
    """The server starts; the blobs that it tells as lost."""
    told: list[Blob] = []
    blobs.listeners.on_spoilt.append(told.append)
    blobs.sweep(lambda owner_id: True)
    return told


@pytest.mark.parametrize("damage", [b"", CONTENTS[0][:-1], None])
async def test_a_ready_blob_of_another_size_is_corrupt_from_the_start_on(
    blobs: BlobStore, damage: bytes | None
) -> None:
    for blob in await made(blobs):
        path = blobs.files.path(file_name(blob))
        if damage is None:
            path.unlink()
        else:
            path.write_bytes(damage)
    assert {blob.state for blob in restarted(blobs)} == {BlobState.CORRUPT}
    for blob in blobs.all():
        with pytest.raises(DataLoss) as told:
            await content(blobs, blob.id)
        assert told.value.reason is ErrorReason.BLOB_CORRUPT


async def test_other_bytes_of_the_same_size_are_found_after_a_start_of_the_machine(blobs: BlobStore) -> None:
    picture, upload = await made(blobs)
    assert restarted(blobs) == []
    blobs.files.path(file_name(upload)).write_bytes(bytes(upload.size_bytes))
    (blobs.files.folder.parent / "boot").write_text("an earlier run of the machine")
    assert [blob.id for blob in restarted(blobs)] == [upload.id]
    assert await content(blobs, picture.id) == CONTENTS[0]
    assert not power_loss.machine_restarted(blobs.files.folder.parent)


@pytest.mark.skipif(os.name != "posix", reason="Windows has no modes of this kind")
def test_files_and_folders_of_blobs_are_their_owners_alone(tmp_path: Path) -> None:
    files = BlobFiles(tmp_path / "state" / "blobs")
    kept = files.path(files.write(b"data"))
    files.reserve("upload", 4)
    uploaded = files.path("upload")
    assert (kept.parent, uploaded) == (files.folder / kept.name[:2], files.folder / "up" / "upload")
    modes = [stat.S_IMODE(path.stat().st_mode) for path in (files.folder, kept.parent, kept, uploaded)]
    assert modes == [0o700, 0o700, 0o600, 0o600]
    assert uploaded.stat().st_size == 4
    files.write_at("upload", 1, b"abc")
    assert uploaded.read_bytes() == b"\0abc"
    assert BlobFiles(files.folder).size("upload") == 4


@pytest.mark.skipif(sys.platform != "linux", reason="counts in /proc")
def test_no_file_stays_open_after_a_write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = BlobFiles(tmp_path / "blobs", lasting=storage.Durability.POWER)
    files.write(b"data")
    files.reserve("upload", 4)
    files.write_at("upload", 0, b"data")

    def fail(descriptor: int) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(os, "fsync", fail)
    for attempt in (
        lambda: files.write(b"other"),
        lambda: files.reserve("update", 4),
        lambda: files.write_at("upload", 0, b"more"),
    ):
        with pytest.raises(InternalError):
            attempt()
    assert not open_within(files.folder)


def test_what_is_gone_already_is_removed_without_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = BlobFiles(tmp_path / "blobs", lasting=storage.Durability.POWER)
    files.remove("nothing")
    files.write(b"kept")
    stray = [files.folder / "aa" / "gone", files.path(files.write(b"stray"))]
    with monkeypatch.context() as patched:
        patched.setattr(Path, "glob", lambda folder, pattern: iter(stray))  # pyright: ignore[reportUnknownLambdaType, reportUnknownArgumentType]
        assert files.sweep([]) == 2
    assert [path.exists() for path in stray] == [False, False]

    def fail(descriptor: int) -> None:
        for path in files.folder.glob("*/*"):
            path.unlink()
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(os, "fsync", fail)
    for attempt in (lambda: files.write(b"data"), lambda: files.reserve("nothing", 4)):
        with pytest.raises(InternalError) as told:
            attempt()
        assert told.value.reason is ErrorReason.STORAGE_FAILED


def test_a_content_that_is_there_is_not_written_again_and_half_of_one_is(tmp_path: Path) -> None:
    files = BlobFiles(tmp_path / "blobs")
    path = files.path(files.write(b"data"))
    before = path.stat().st_ino
    files.write(b"data")
    assert path.stat().st_ino == before
    path.write_bytes(b"dat")
    files.write(b"data")
    assert path.read_bytes() == b"data"


async def test_blobs_that_were_written_a_while_before_the_newest_are_not_hashed(blobs: BlobStore) -> None:
    made = [await uploaded(blobs, bytes([number])) for number in range(3)]
    newest = max(blob.create_time_s for blob in made) + 1000.0
    for blob, before_s in zip(made, (0.0, 600.0, 600.5), strict=True):
        path = blobs.files.path(file_name(blob))
        path.write_bytes(b"x")
        os.utime(path, (newest - before_s, newest - before_s))
    found = power_loss.damaged(blobs.all(), blobs.files, machine_restarted=True)
    assert [blob.id for blob in found] == [made[0].id, made[1].id]
    assert power_loss.damaged([], blobs.files, machine_restarted=True) == []
    assert power_loss.damaged(blobs.all(), blobs.files, machine_restarted=False) == []


async def test_only_complete_blobs_on_the_disk_are_compared_with_their_files(blobs: BlobStore) -> None:
    await uploaded(blobs, b"in memory", BlobTier.HOST)
    half = await blobs.requests.create(BlobSpec(size_bytes=4))
    blobs.files.path(file_name(half)).unlink()
    assert power_loss.damaged(blobs.all(), blobs.files, machine_restarted=True) == []


async def test_a_file_that_cannot_be_read_is_damaged(blobs: BlobStore, monkeypatch: pytest.MonkeyPatch) -> None:
    blob = await uploaded(blobs, b"data")

    def refuse(path: Path, mode: str) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(Path, "open", refuse)
    assert [one.id for one in power_loss.damaged([blob], blobs.files, machine_restarted=True)] == [blob.id]


def test_a_boot_without_an_id_is_known_by_its_minute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    boot_s = 1_000_000 * 60.0
    monkeypatch.setattr(power_loss, "boot_id", lambda: "")
    monkeypatch.setattr(power_loss.psutil, "boot_time", lambda: boot_s)
    assert power_loss.machine_restarted(tmp_path)
    power_loss.note_boot(tmp_path)
    assert (tmp_path / "boot").read_text() == "1000000"
    boot_s += 29
    assert not power_loss.machine_restarted(tmp_path)
    boot_s += 2
    assert power_loss.machine_restarted(tmp_path)
    (tmp_path / "boot").write_bytes(b"\xff")
    assert power_loss.machine_restarted(tmp_path)


def test_what_cannot_be_synced_leaves_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = BlobFiles(tmp_path / "blobs", lasting=storage.Durability.POWER)

    def fail(descriptor: int) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(os, "fsync", fail)
    for folder in ("up", hashlib.sha256(b"data").hexdigest()[:2]):
        (files.folder / folder).mkdir()
    for attempt in (lambda: files.reserve("upload", 4), lambda: files.write(b"data")):
        with pytest.raises(InternalError) as told:
            attempt()
        assert told.value.reason is ErrorReason.STORAGE_FAILED
        assert list(files.folder.glob("*/*")) == []


@pytest.mark.skipif(os.name != "posix", reason="Windows has no fsync of folders")
@pytest.mark.parametrize(("lasting", "waits"), [(storage.Durability.POWER, True), (storage.Durability.PROCESS, False)])
def test_with_power_a_picture_and_its_name_are_on_the_disk_before_the_row(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lasting: storage.Durability, waits: bool
) -> None:
    synced: list[int] = []
    monkeypatch.setattr(os, "fsync", lambda descriptor: synced.append(os.fstat(descriptor).st_ino))  # pyright: ignore[reportUnknownLambdaType, reportUnknownArgumentType]
    files = BlobFiles(tmp_path / "blobs", lasting=lasting)
    assert synced == ([tmp_path.stat().st_ino] if waits else [])
    synced.clear()
    path = files.path(files.write(CONTENTS[0]))
    wanted = {path.stat().st_ino, path.parent.stat().st_ino, files.folder.stat().st_ino}
    assert set(synced) == (wanted if waits else set())
    synced.clear()
    files.write(CONTENTS[0])
    again = {path.stat().st_ino, path.parent.stat().st_ino}
    assert set(synced) == (again if waits else set()), "another thread may have written it and not synced it yet"
    synced.clear()
    files.reserve("upload", 4)
    made = {files.path("upload").stat().st_ino, files.path("upload").parent.stat().st_ino, files.folder.stat().st_ino}
    assert set(synced) == (made if waits else set())
    synced.clear()
    files.write_at("upload", 0, b"more")
    assert set(synced) == ({files.path("upload").stat().st_ino} if waits else set())
