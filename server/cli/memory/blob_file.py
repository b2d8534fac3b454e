"""Writes a blob of the server to a file: streamed, checked, and renamed to its name when it is complete."""

from __future__ import annotations

import contextlib
import hashlib
import os
import tempfile
from collections.abc import Generator
from pathlib import Path
from typing import IO, TYPE_CHECKING

from server.cli.calls.connection import Connection
from server.cli.console.failure import CliError

if TYPE_CHECKING:
    from deviceops.common.v1.image_pb2 import ImageFile

_PREFIX = 32
"""Characters of the file's name, at most 128 bytes, in the name of its unfinished part."""


def save(connection: Connection, file: ImageFile, target: Path, *, force: bool) -> None:
    """Read a blob into `target`, which appears only when it is complete.

    Raises `CliError` if size or SHA-256 differ from those of `file`, if the file cannot be written, or, without `force`,
    if `target` exists.
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
    # The whole name with an ending can exceed the limit of a file name.
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
    # `mkstemp` gives only this user access; a picture has the permissions of an ordinary file.
    mask = os.umask(0)
    os.umask(mask)
    part.chmod(0o666 & ~mask)
    if force:
        part.replace(target)
        return
    try:
        # A link fails if the name exists by now; a rename would overwrite the file.
        os.link(part, target)
    except FileExistsError:
        raise
    except OSError:
        # A file system without hard links.
        if target.exists():
            raise FileExistsError(target) from None
        part.replace(target)
