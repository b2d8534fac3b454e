"""A blob from the server to this machine's disk: streamed, checked, and never half there."""

from __future__ import annotations

import contextlib
import hashlib
import os
import tempfile
from collections.abc import Generator
from pathlib import Path
from typing import IO, TYPE_CHECKING

from server.cli.connection import Connection
from server.cli.failure import CliError

if TYPE_CHECKING:
    from deviceops.common.v1.image_pb2 import ImageFile

_PREFIX = 32
"""Characters of the file's name in that of its unfinished part: at most 128 bytes."""


def save(connection: Connection, file: ImageFile, target: Path, *, force: bool) -> None:
    """Read a blob into `target`, which appears complete or not at all.

    Raises `CliError` if size or SHA-256 (where `file` has one) are not those of `file`, if the disk refuses, or,
    without `force`, if `target` exists.
    """
    try:
        with _beside(target) as (part, stream):
            _read(connection, file, stream)
            stream.flush()
            os.fsync(stream.fileno())
            _put(part, target, force)
    except FileExistsError as error:
        raise CliError(f"{target} exists by now; nothing was overwritten, --force would") from error
    except OSError as error:
        raise CliError(f"cannot write {target}: {error.strerror}") from error


@contextlib.contextmanager
def _beside(target: Path) -> Generator[tuple[Path, IO[bytes]]]:
    # The whole name and an ending together can be longer than a name may be.
    handle, name = tempfile.mkstemp(prefix=f".{target.name[:_PREFIX]}.", suffix=".part", dir=target.parent)
    part = Path(name)
    try:
        with os.fdopen(handle, "wb") as stream:
            yield part, stream
    finally:
        part.unlink(missing_ok=True)


def _read(connection: Connection, file: ImageFile, stream: IO[bytes]) -> None:
    from deviceops.memory.v1 import memory_service_pb2

    digest, size = hashlib.sha256(), 0
    for chunk in connection.memory.ReadBlob(memory_service_pb2.ReadBlobRequest(blob_id=file.blob_id)):
        stream.write(chunk.data)
        digest.update(chunk.data)
        size += len(chunk.data)
    if size != file.size_bytes or (file.sha256 and digest.hexdigest() != file.sha256):
        raise CliError(
            f"blob {file.blob_id} arrived damaged: {size} bytes with SHA-256 {digest.hexdigest()}, announced were "
            f"{file.size_bytes} bytes with {file.sha256}"
        )


def _put(part: Path, target: Path, force: bool) -> None:
    # mkstemp made it for this user alone; a picture is an ordinary file.
    mask = os.umask(0)
    os.umask(mask)
    part.chmod(0o666 & ~mask)
    if force:
        part.replace(target)
        return
    try:
        # A link is refused if the name was taken meanwhile; a rename would overwrite.
        os.link(part, target)
    except FileExistsError:
        raise
    except OSError:
        # A file system without hard links.
        if target.exists():
            raise FileExistsError(target) from None
        part.replace(target)
