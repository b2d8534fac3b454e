"""Blobs as the files of a model: where their bytes lie, and what their owners say about them.

A worker maps or reads the file behind a blob, so that nothing is copied: a file that another process owns (MAPPED), or one
of the server's own (DISK). Blobs that are a part of a file, or lie in the memory of one process, have no such file.
"""

import errno
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path, PurePosixPath

import msgspec
from msgspec.structs import replace

from domains.errors import DataLoss, ErrorReason, InvalidRequest, NotFound, Violation, excerpt
from domains.memory.blobs.blob import Blob, BlobState, BlobTier, MappedFile
from domains.memory.blobs.files import file_name
from domains.memory.blobs.store import BlobStore
from domains.model.fingerprint import hash_of
from domains.model.model import FileStamp, Model
from domains.model.regular_file import state_text
from domains.stop import never

MAX_FILES = 1000
_FIELD = "blob_source.files"
_WEIGHTS = ".safetensors"
_MAX_PATH = 255

BlobPaths = tuple[tuple[str, str], ...]
"""Path in the model, and the blob with the file's bytes."""


class BlobFile(msgspec.Struct, frozen=True, kw_only=True):
    """A file of a model, in a blob."""

    path: str
    blob: Blob
    real: Path

    def stamp(self) -> FileStamp:
        """The file as it is now. The hash is the one that the blob's owner gave. Raises OSError."""
        return FileStamp(
            path=self.path,
            real=str(self.real),
            state=state_text(self.real.stat()),
            sha256=self.blob.sha256,
            size_bytes=self.blob.size_bytes,
            blob_id=self.blob.id,
            generation=self.blob.generation,
        )


BlobFiles = Mapping[str, BlobFile]
"""By path in the model."""


def blob_files(asked: BlobPaths, blobs: BlobStore) -> BlobFiles:
    """The files. Raises INVALID_FIELD, BLOB_NOT_FOUND (also one that is not whole, or lost), BLOB_CORRUPT."""
    if wrong := _malformed(asked):
        raise InvalidRequest(wrong)
    found = {path: _readable(blobs, blob_id) for path, blob_id in asked}
    real = {path: _real(blobs, blob) for path, blob in found.items()}
    apart = [
        Violation(
            field=f"{_FIELD}[{at}].blob_id",
            message=f"{found[path].id} is no whole file that a worker can open: it {_where(found[path])}; map a file of its"
            " own with RegisterBlob, or upload it to DISK",
        )
        for at, (path, _) in enumerate(asked)
        if real[path] is None
    ]
    if apart:
        raise InvalidRequest(apart)
    return {path: BlobFile(path=path, blob=found[path], real=place) for path, place in real.items() if place}


def _malformed(asked: BlobPaths) -> list[Violation]:
    if not 0 < len(asked) <= MAX_FILES:
        text = f"has {len(asked)} files; name 1..{MAX_FILES}"
        return [Violation(field=_FIELD, message=text, allowed=f"1..{MAX_FILES} files")]
    wrong: list[Violation] = []
    first: dict[str, int] = {}
    for at, (path, _) in enumerate(asked):
        field = f"{_FIELD}[{at}].path"
        if first.setdefault(path, at) != at:
            wrong.append(Violation(field=field, message=f"is the same as that of files[{first[path]}]"))
        if not _is_relative(path):
            text = (
                f"{excerpt(path)!r} is no path inside a model; write it like unet/diffusion_pytorch_model.safetensors"
            )
            wrong.append(Violation(field=field, message=text))
    return wrong


def _is_relative(path: str) -> bool:
    parts = PurePosixPath(path).parts
    plain = bool(path) and len(path) <= _MAX_PATH and not set(path) & {"\\", "\0", ":"}
    return plain and "/".join(parts) == path and ".." not in parts and not path.startswith("/")


def _readable(blobs: BlobStore, blob_id: str) -> Blob:
    blob = blobs.look(blob_id)
    if blob.state is BlobState.CORRUPT:
        message = f"the bytes of blob {blob.id} are not what its hash says; replace them"
        raise DataLoss(message, ErrorReason.BLOB_CORRUPT, blob_id=blob.id)
    if blob.state is not BlobState.READY:
        message = f"blob {blob.id} is {blob.state}; register it again, or wait until it is ready"
        raise NotFound(message, ErrorReason.BLOB_NOT_FOUND, blob_id=blob.id)
    return blob


def _real(blobs: BlobStore, blob: Blob) -> Path | None:
    """The path of the file that holds the blob and nothing else. None: there is no such file."""
    if blob.tier is BlobTier.DISK:
        return blobs.files.path(file_name(blob)).resolve()
    if isinstance(blob.backing, MappedFile) and not blob.backing.offset_bytes:
        path = Path(blob.backing.path)
        return path if path.stat().st_size == blob.size_bytes else None
    return None


def _where(blob: Blob) -> str:
    return "is a part of a larger file" if isinstance(blob.backing, MappedFile) else f"lies in the tier {blob.tier}"


class BlobFolder:
    """A folder that exists as blobs alone, for the readers of folders."""

    def __init__(self, folder: Path, files: BlobFiles) -> None:
        self._folder = folder
        self._files = files

    def inside(self, path: Path) -> Path:
        """The real path of a file; a folder's path is as it is. Raises FileNotFoundError."""
        name = path.relative_to(self._folder).as_posix()
        if name in self._files:
            return self._files[name].real
        if self.files(path) is None:
            raise FileNotFoundError(errno.ENOENT, "No such file among the blobs", name)
        return path

    def files(self, folder: Path) -> Mapping[str, Path] | None:
        """The real paths of the files in a folder, by name. None: there is no such folder."""
        start = "" if folder == self._folder else f"{folder.relative_to(self._folder).as_posix()}/"
        below = {path.removeprefix(start): one.real for path, one in self._files.items() if path.startswith(start)}
        return {name: real for name, real in below.items() if "/" not in name} if below else None

    def stamps(
        self, folder: Path, files: Mapping[str, Path], cancelled: Callable[[], bool] = never
    ) -> tuple[FileStamp, ...]:
        """See `fingerprint.Stamping`: the hashes that the owners gave, and nothing is read."""
        return tuple(self._files[name].stamp() for name in sorted(files))


def of_blobs(model: Model, files: BlobFiles) -> Model:
    """The model whose files were read by their real paths, with the blobs that they are."""
    stamps = [files[stamp.path].stamp() if stamp.path in files else stamp for stamp in model.files]
    weights = [stamp for stamp in stamps if stamp.path.endswith(_WEIGHTS)]
    # Those beside the components (an index, a licence) are needed too: the model is read from them.
    named = {stamp.path for stamp in stamps}
    beside = [one.stamp() for path, one in files.items() if path not in named]
    return replace(model, folder="", files=(*stamps, *beside), sha256=hash_of(weights) if weights else "")


def blobs_of(model: Model, *, weights: bool = False) -> Sequence[FileStamp]:
    """The model's files that are blobs; `weights`: only weight files."""
    return [stamp for stamp in model.files if stamp.blob_id and (not weights or stamp.path.endswith(_WEIGHTS))]
