"""The hash that names a model's content.

sha256 over, for each weight file in order of its path: the path relative to the model's folder, a NUL, the file's own sha256
in hex, a newline. So it does not depend on where the folder lies, and one changed byte changes it.
"""

import hashlib
import os
import time
from collections.abc import Callable, Collection, Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO, Protocol

import msgspec

from domains.errors import DataLoss
from domains.model.content_hash import HashCancelled as HashCancelled
from domains.model.content_hash import content_hash, tensor_hash
from domains.model.model import FileStamp
from domains.model.regular_file import open_regular, state_of
from domains.model.safetensors_header import Header, header_of
from domains.stop import never

CLOCK_GRAIN_S = 2.0
"""The coarsest clock of a file system in use (FAT). A file younger than this may change again without its time changing."""


class FileHash(msgspec.Struct, frozen=True, kw_only=True):
    """A file's hashes (see `domains.model.content_hash`), and its state when it was hashed."""

    path: str
    state: str
    """Size, times and inode, as text."""
    sha256: str
    data_sha256: str = ""
    tensor_sha256: str = ""
    short_hash: str = ""


class Stamping(Protocol):
    """Makes the stamps of a model's weight files."""

    def stamps(
        self, folder: Path, files: Mapping[str, Path], cancelled: Callable[[], bool] = never
    ) -> tuple[FileStamp, ...]:
        """Stamps in order of the path in the folder; `files`: that path → the real one. Raises HashCancelled, OSError."""
        ...


class Fingerprints:
    """File hashes, remembered by path, size, times and inode, so that a rescan reads only what changed."""

    def __init__(self, known: Iterable[FileHash] = ()) -> None:
        self._known = {one.path: one for one in known}
        self.read_bytes = 0
        """Bytes read so far to compute hashes."""

    @property
    def known(self) -> tuple[FileHash, ...]:
        """The known hashes; persist them to keep them across restarts."""
        return tuple(self._known.values())

    def stamps(
        self, folder: Path, files: Mapping[str, Path], cancelled: Callable[[], bool] = never
    ) -> tuple[FileStamp, ...]:
        """Stamps of weight files, in order of their path in the folder; `files`: that path → the real one.

        Raises HashCancelled, and OSError, also for a file that changes while it is read.
        """
        return tuple(self._stamp(folder, name, files[name], cancelled) for name in sorted(files))

    def of_file(self, path: Path, cancelled: Callable[[], bool] = never) -> str:
        """The file's sha256, from memory if it has not changed. Raises as `stamps`."""
        return self._stamp(path.parent, path.name, path.resolve(), cancelled).sha256

    def forget_all_but(self, folders: Collection[str]) -> None:
        """Keep only the hashes of files at or under these paths (absolute), so that the memory does not grow for ever."""
        wanted = {*folders}
        self._known = {path: one for path, one in self._known.items() if not wanted.isdisjoint(_with_parents(path))}

    def known_stamps(self, folder: Path, files: Mapping[str, Path]) -> tuple[FileStamp, ...]:
        """As `stamps`, but without reading content: a file that has changed since it was hashed has no hash."""
        return tuple(self._known_stamp(folder, name, files[name]) for name in sorted(files))

    def _known_stamp(self, folder: Path, name: str, real: Path) -> FileStamp:
        with open_regular(real) as file:
            state, size = state_of(file), os.fstat(file.fileno()).st_size
        known = self._known.get(str(folder / name))
        if known and known.state == state:
            return stamped(name, real, known, size)
        return FileStamp(path=name, real=str(real), size_bytes=size)

    def forget_below(self, folder: Path) -> None:
        """Forget the hashes of all files below a folder."""
        start = f"{folder}{os.sep}"
        self._known = {path: one for path, one in self._known.items() if not path.startswith(start)}

    def forget(self, folder: Path, names: Iterable[str]) -> None:
        """Forget the hashes of files of a folder, so that the next look reads them again."""
        for name in names:
            self._known.pop(str(folder / name), None)

    def _stamp(self, folder: Path, name: str, real: Path, cancelled: Callable[[], bool]) -> FileStamp:
        key = str(folder / name)
        began = time.time()
        with open_regular(real) as file:
            state, size = state_of(file), os.fstat(file.fileno()).st_size
            known = self._known.get(key)
            if known and known.state == state:
                return stamped(name, real, known, size)
            settled = began - os.fstat(file.fileno()).st_mtime > CLOCK_GRAIN_S
            made = self._hash(file, key, state, cancelled)
            if state_of(file) != state:
                raise OSError(0, "it changed while it was read; scan again when it is complete", key)
        self._known.pop(key, None)
        if settled:
            self._known[key] = made
        return stamped(name, real, made if settled else msgspec.structs.replace(made, state=""), size)

    def _hash(self, file: BinaryIO, key: str, state: str, cancelled: Callable[[], bool]) -> FileHash:
        def counted(size: int) -> None:
            self.read_bytes += size

        return file_hash(file, key, state, cancelled, counted)


def _with_parents(path: str) -> list[str]:
    return [path, *map(str, Path(path).parents)]


def file_hash(
    file: BinaryIO, path: str, state: str, cancelled: Callable[[], bool], read: Callable[[int], None]
) -> FileHash:
    """The hashes of an open file. Raises HashCancelled, OSError."""
    header = header_or_none(file, Path(path))
    hashes = content_hash(file, header.data_offset if header else None, cancelled, read)
    return FileHash(
        path=path,
        state=state,
        sha256=hashes.sha256,
        data_sha256=hashes.data_sha256,
        tensor_sha256=tensor_hash(header, hashes.data_sha256) if header else "",
        short_hash=hashes.short_hash,
    )


def header_or_none(file: BinaryIO, path: Path) -> Header | None:
    """The safetensors header of an open file. None: it has none that can be read."""
    with suppress(DataLoss):
        return header_of(file, path)
    return None


def stamped(name: str, real: Path, one: FileHash, size_bytes: int) -> FileStamp:
    """The stamp of a file with these hashes."""
    return FileStamp(
        path=name,
        real=str(real),
        state=one.state,
        sha256=one.sha256,
        data_sha256=one.data_sha256,
        tensor_sha256=one.tensor_sha256,
        short_hash=one.short_hash,
        size_bytes=size_bytes,
    )


class HeadersOnly:
    """Stamps with the hashes that are known already; computes none."""

    def __init__(self, fingerprints: Fingerprints) -> None:
        self._fingerprints = fingerprints

    def stamps(
        self, folder: Path, files: Mapping[str, Path], cancelled: Callable[[], bool] = never
    ) -> tuple[FileStamp, ...]:
        """As `Stamping`."""
        return self._fingerprints.known_stamps(folder, files)


def hash_of(stamps: Iterable[FileStamp]) -> str:
    """The model's hash, as the module's docstring defines it. Empty: a file was not hashed."""
    whole = hashlib.sha256()
    for stamp in sorted(stamps, key=lambda stamp: stamp.path):
        if not stamp.sha256:
            return ""
        whole.update(f"{stamp.path}\0{stamp.sha256}\n".encode())
    return whole.hexdigest()
