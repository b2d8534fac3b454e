"""Finds blobs on disk that lost bytes in a power failure. Runs at start, before the first read.

The size of each file is compared at every start. After a restart of the machine, the newest blobs are also compared with
their hashes. Older blobs are not: the system writes all bytes to the disk within a limited time (Linux: 30 s).
"""

import hashlib
from collections.abc import Iterable
from pathlib import Path

import psutil

from domains.clock import boot_id
from domains.memory.blobs.blob import Blob, BlobState, BlobTier
from domains.memory.blobs.files import BlobFiles, file_name

_LAST_S = 600.0
"""Blobs that are at most so much older than the newest one are hashed."""
_BOOT = "boot"


def damaged(blobs: Iterable[Blob], files: BlobFiles, *, machine_restarted: bool) -> list[Blob]:
    """The READY blobs on disk whose bytes differ from those that were stored."""
    ready = [blob for blob in blobs if blob.tier is BlobTier.DISK and blob.state is BlobState.READY]
    last = _written_last(ready, files) if machine_restarted else frozenset[str]()
    return [blob for blob in ready if not _is_whole(blob, files, hashed=blob.id in last)]


def _written_last(blobs: Iterable[Blob], files: BlobFiles) -> frozenset[str]:
    """Ids of the blobs that were written last."""
    written = {blob.id: _written_s(blob, files) for blob in blobs}
    since = max(written.values(), default=0.0) - _LAST_S
    return frozenset(name for name, written_s in written.items() if written_s >= since)


def _is_whole(blob: Blob, files: BlobFiles, *, hashed: bool) -> bool:
    if files.size(file_name(blob)) != blob.size_bytes:
        return False
    return not hashed or _sha256(files.path(file_name(blob))) == blob.sha256


def _written_s(blob: Blob, files: BlobFiles) -> float:
    try:
        return max(blob.create_time_s, files.path(file_name(blob)).stat().st_mtime)
    except OSError:
        return blob.create_time_s


def _sha256(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError:
        return ""


def machine_restarted(folder: Path) -> bool:
    """Whether the machine was started since `note_boot`; also true if that was never called."""
    try:
        return (folder / _BOOT).read_text("ascii") != _boot()
    except (OSError, UnicodeDecodeError):
        return True


def note_boot(folder: Path) -> None:
    """Record that the blobs were checked since the machine's start."""
    (folder / _BOOT).write_text(_boot(), "ascii")


def _boot() -> str:
    """An id of the machine's present boot."""
    return boot_id() or str(round(psutil.boot_time() / 60))
