"""After a loss of power no READY blob has other bytes, and what was lost is told."""

import errno
import hashlib
import os
from pathlib import Path

import pytest

from domains import storage
from domains.errors import DataLoss, ErrorReason, InternalError
from domains.memory.blobs import power_loss
from domains.memory.blobs.blob import Blob, BlobState
from domains.memory.blobs.files import BlobFiles, file_name
from domains.memory.blobs.store import BlobStore
from tests.domains.memory.blobs import content, uploaded

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
    files = BlobFiles(tmp_path / "blobs", lasting=lasting)
    synced: list[int] = []
    monkeypatch.setattr(os, "fsync", lambda descriptor: synced.append(os.fstat(descriptor).st_ino))  # pyright: ignore[reportUnknownLambdaType, reportUnknownArgumentType]
    path = files.path(files.write(CONTENTS[0]))
    wanted = {path.stat().st_ino, path.parent.stat().st_ino, files.folder.stat().st_ino}
    assert set(synced) == (wanted if waits else set())
    synced.clear()
    files.reserve("upload", 4)
    files.write_at("upload", 0, b"data")
    assert (files.path("upload").stat().st_ino in synced) == waits
