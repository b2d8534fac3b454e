"""`deviceops blobs put`: a file of this machine becomes a blob of the server."""

from __future__ import annotations

import hashlib
import mimetypes
from collections.abc import Iterator
from io import BufferedReader
from pathlib import Path
from typing import IO, TYPE_CHECKING, Annotated, Literal

import typer

from server.cli.calls import ids
from server.cli.calls.connection import AddressOption, Connection, JsonOption, connect
from server.cli.console.failure import USAGE, CliError
from server.cli.console.printing import emit, print_json

if TYPE_CHECKING:
    from deviceops.memory.v1.blob_pb2 import BlobSpec
    from deviceops.memory.v1.memory_service_pb2 import UploadBlobRequest, UploadBlobResponse

_CHUNK_BYTES = 1 << 20


def put(
    file: Annotated[Path, typer.Argument(help="The file.")],
    tier: Annotated[
        Literal["disk", "host", "pinned-host", "device"], typer.Option(help="Where its bytes shall lie.")
    ] = "disk",
    device: Annotated[str, typer.Option(help="The device, for pinned-host and device.")] = "",
    media_type: Annotated[str | None, typer.Option(help="What it is. [default: by the file's ending]")] = None,
    keep: Annotated[
        float | None, typer.Option(min=1, help="Seconds to keep it unused. [default: the server's]")
    ] = None,
    address: AddressOption = None,
    json: JsonOption = False,
) -> None:
    """Upload a file as a blob and print its id. The server checks the bytes against their SHA-256."""
    from deviceops.memory.v1 import blob_pb2

    spec = blob_pb2.BlobSpec(
        tier=blob_pb2.BlobTier.Value(f"BLOB_TIER_{tier.replace('-', '_').upper()}"),
        media_type=media_type_of(file) if media_type is None else media_type,
    )
    if keep is not None:
        spec.keep_for.FromNanoseconds(round(keep * 1e9))
    try:
        with file.open("rb") as stream, connect(address) as connection:
            spec.device_id = device and ids.device(connection, device)
            answer = upload(connection, file, stream, spec)
    except OSError as error:
        raise CliError(f"cannot read {file}: {error.strerror}", USAGE) from error
    return print_json(answer) if json else emit(answer.blob.id)


def upload(
    connection: Connection, file: Path, stream: BufferedReader, spec: BlobSpec | None = None
) -> UploadBlobResponse:
    """Upload an open file. `spec`: what the blob shall be; None: a blob on disk."""
    from deviceops.memory.v1 import blob_pb2

    spec = blob_pb2.BlobSpec(media_type=media_type_of(file)) if spec is None else spec
    stream.seek(0)
    spec.sha256 = hashlib.file_digest(stream, "sha256").hexdigest()
    spec.size_bytes = stream.tell()
    stream.seek(0)
    return connection.memory.UploadBlob(_parts(spec, stream))


def media_type_of(file: Path) -> str:
    """The media type of a file's ending; empty for an unknown ending."""
    return mimetypes.guess_type(file.name)[0] or ""


def _parts(spec: BlobSpec, stream: IO[bytes]) -> Iterator[UploadBlobRequest]:
    """A first message with size and hash, then the bytes. The server refuses a file that changes during the upload."""
    from deviceops.memory.v1 import blob_pb2, memory_service_pb2

    yield memory_service_pb2.UploadBlobRequest(blob_spec=spec)
    offset = 0
    while data := stream.read(_CHUNK_BYTES):
        chunk = blob_pb2.BlobChunk(offset_bytes=offset, data=data)
        yield memory_service_pb2.UploadBlobRequest(chunk=chunk)
        offset += len(data)
