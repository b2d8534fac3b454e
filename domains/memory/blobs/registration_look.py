"""The file or shared memory behind a registration: opened, its size checked, and hashed if the caller asks for it."""

import hashlib
import os
from pathlib import Path

import msgspec

from domains.errors import DataLoss, ErrorReason, FailedPrecondition, NotFound
from domains.memory.blobs.blob import MappedFile, SharedMemorySegment
from domains.memory.blobs.mapped import FileStamp, hash_of, open_file, stamp_of
from domains.memory.blobs.mapped_tier import SharedView, open_shared_memory
from domains.memory.blobs.registration_request import Registration
from domains.memory.blobs.roots import BlobRoots


class Seen(msgspec.Struct, frozen=True, kw_only=True):
    """What a look found."""

    backing: MappedFile | SharedMemorySegment
    source: FileStamp | SharedView
    size_bytes: int
    sha256: str


def look_at_file(asked: Registration, backing: MappedFile, roots: BlobRoots) -> Seen:
    """Look at a file inside the roots. Blocks while the file is hashed."""
    try:
        descriptor = open_file(Path(backing.path), roots)
    except (FileNotFoundError, NotADirectoryError) as error:
        message = f"there is no file {backing.path}; make it first"
        raise NotFound(message, ErrorReason.PATH_NOT_FOUND, path=backing.path) from error
    except OSError as error:
        message = f"{backing.path} cannot be opened: {error.strerror}; let the server read it"
        raise FailedPrecondition(message, path=backing.path) from error
    try:
        stamp = stamp_of(descriptor)
        size = stamp.size_bytes - backing.offset_bytes if asked.size_bytes is None else asked.size_bytes
        if size < 0 or backing.offset_bytes + size > stamp.size_bytes:
            raise _too_short(backing.path, stamp.size_bytes, backing.offset_bytes + max(0, size))
        sha256 = hash_of(descriptor, backing.offset_bytes, size) if asked.verify else asked.sha256
        if sha256 is None:
            raise _too_short(backing.path, stamp_of(descriptor).size_bytes, backing.offset_bytes + size)
    finally:
        os.close(descriptor)
    _compare(asked.sha256, sha256, backing.path)
    return Seen(backing=backing, source=stamp, size_bytes=size, sha256=sha256)


def look_at_memory(asked: Registration, backing: SharedMemorySegment) -> Seen:
    """Look at named shared memory. Blocks while it is hashed."""
    size = asked.size_bytes
    assert size is not None, "check_registration refuses shared memory without a size"
    view = open_shared_memory(backing.name)
    try:
        if backing.offset_bytes + size > view.size_bytes:
            raise _too_short(backing.name, view.size_bytes, backing.offset_bytes + size)
        sha256 = asked.sha256
        if asked.verify:
            sha256 = hashlib.sha256(view.read(backing.offset_bytes, size)).hexdigest()
        _compare(asked.sha256, sha256, backing.name)
    except BaseException:
        view.close()
        raise
    return Seen(backing=backing, source=view, size_bytes=size, sha256=sha256)


def drop(seen: Seen) -> None:
    """Close what was found and will not be used."""
    if not isinstance(seen.source, FileStamp):
        seen.source.close()


def _compare(wanted: str, found: str, name: str) -> None:
    if wanted and found != wanted:
        message = f"{name} has the sha256 {found}, {wanted} was given; register it when it is written"
        raise DataLoss(message, ErrorReason.BLOB_CORRUPT, sha256=found, expected_sha256=wanted)


def _too_short(name: str, size: int, needed: int) -> FailedPrecondition:
    message = f"{name} has {size} bytes, offset and size need {needed}; register it when it is written"
    return FailedPrecondition(message, ErrorReason.ILLEGAL_STATE, path=name, size_bytes=size, needed_bytes=needed)
