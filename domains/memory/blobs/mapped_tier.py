"""The tier MAPPED: the stamps and views of registered files and shared memory, checked at each use."""

import asyncio
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Protocol, TypeVar

from domains.errors import InvalidRequest, PermissionDenied, Violation
from domains.memory.blobs.blob import Blob, MappedFile
from domains.memory.blobs.mapped import FileStamp, MappedContent, changed, hash_of, lost, open_file, stamp_of
from domains.memory.blobs.roots import BlobRoots
from domains.memory.blobs.tiers import Content

Result = TypeVar("Result")


class SharedView(Protocol):
    """A read-only view of named shared memory."""

    size_bytes: int

    def read(self, offset: int, size: int) -> bytes:
        """Read a piece inside the view."""
        ...

    def close(self) -> None:
        """Close the view. To be called once."""
        ...


def open_shared_memory(name: str) -> SharedView:
    """The view of named shared memory. INVALID_FIELD on a system that has none."""
    if sys.platform == "win32":
        from domains.memory.blobs.mapped_windows import SharedMemoryView

        return SharedMemoryView(name)
    message = "named shared memory exists only on Windows; here, map a file under /dev/shm and register it as `file`"
    raise InvalidRequest([Violation(field="shared_memory", message=message)])


class SharedContent:
    """A range of shared memory, open for reading."""

    def __init__(self, view: SharedView, offset_bytes: int) -> None:
        self._view = view
        self._begin = offset_bytes

    async def read(self, offset: int, size: int, then: Callable[[bytes], Result]) -> Result:
        """Read a piece, as a copy."""
        return await asyncio.to_thread(lambda: then(self._view.read(self._begin + offset, size)))

    def close(self) -> None:
        """Do nothing: the view stays open as long as its blob exists."""


class MappedBytes:
    """The stamps of all mapped files, and the views of shared memory. No file is held open between uses."""

    def __init__(self, roots: BlobRoots) -> None:
        self.roots = roots
        self._stamps: dict[str, FileStamp] = {}
        self._views: dict[str, SharedView] = {}

    def note(self, blob_id: str, seen: FileStamp | SharedView) -> None:
        """Note the stamp of a file at its registration or last hash, or the view of shared memory."""
        if isinstance(seen, FileStamp):
            self._stamps[blob_id] = seen
        else:
            self._views[blob_id] = seen

    def stamp(self, blob_id: str) -> FileStamp | None:
        """The noted stamp of a file. None: the blob is shared memory."""
        return self._stamps.get(blob_id)

    def free(self, blob: Blob) -> None:
        """Forget the stamp or close the view. The file stays with its owner."""
        self._stamps.pop(blob.id, None)
        if view := self._views.pop(blob.id, None):
            view.close()

    def check(self, blob: Blob) -> None:
        """Raise `ContentLost` if the file has vanished, was replaced, or has shrunk."""
        if isinstance(blob.backing, MappedFile):
            descriptor, _ = self._open_file(blob, blob.backing)
            os.close(descriptor)

    async def open(self, blob: Blob) -> Content:
        """Open the blob for reading. A file that was written since its hash is hashed again: BLOB_CORRUPT if it differs."""
        if isinstance(blob.backing, MappedFile):
            return await self._content(blob, blob.backing)
        assert blob.backing is not None
        return SharedContent(self._views[blob.id], blob.backing.offset_bytes)

    async def _content(self, blob: Blob, backing: MappedFile) -> MappedContent:
        descriptor, stamp = self._open_file(blob, backing)
        try:
            if blob.sha256 and stamp != self._stamps[blob.id]:
                found = await asyncio.to_thread(hash_of, descriptor, backing.offset_bytes, blob.size_bytes)
                if found is None:
                    raise lost(blob, f"{backing.path} has shrunk")
                if found != blob.sha256:
                    raise changed(blob)
                self._stamps[blob.id] = stamp
        except BaseException:
            os.close(descriptor)
            raise
        return MappedContent(descriptor, blob, backing.offset_bytes)

    def _open_file(self, blob: Blob, backing: MappedFile) -> tuple[int, FileStamp]:
        """A descriptor and the present stamp of the file."""
        try:
            descriptor = open_file(Path(backing.path), self.roots)
        except OSError as error:
            raise lost(blob, f"{backing.path} cannot be opened ({error.strerror})") from error
        except InvalidRequest:
            raise lost(blob, f"{backing.path} is no regular file now") from None
        except PermissionDenied:
            raise lost(blob, f"{backing.path} leads outside the blob roots or belongs to another user now") from None
        stamp, known = stamp_of(descriptor), self._stamps[blob.id]
        why = ""
        if stamp[:2] != known[:2]:
            why = f"{backing.path} is another file now"
        elif stamp.size_bytes < backing.offset_bytes + blob.size_bytes:
            why = f"{backing.path} has only {stamp.size_bytes} bytes now"
        if why:
            os.close(descriptor)
            raise lost(blob, why)
        return descriptor, stamp
