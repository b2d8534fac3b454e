"""`deviceops blobs`: bytes that the server stores, or maps from another process."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from server.cli.calls import ids
from server.cli.calls.connection import AddressOption, Connection, JsonOption, connect
from server.cli.calls.pages import LARGEST_PAGE
from server.cli.console.failure import USAGE, CliError
from server.cli.console.printing import bytes_text, emit, local_time, notice, print_json, word
from server.cli.console.tables import print_table
from server.cli.generation.files import is_taken, make_folder
from server.cli.generation.pictures import save_blob
from server.cli.groups import lists_only
from server.cli.memory import blob_upload

if TYPE_CHECKING:
    from collections.abc import Sequence

    from deviceops.memory.v1.blob_pb2 import Blob
    from deviceops.memory.v1.memory_service_pb2 import ListBlobsResponse

app = typer.Typer(help="List blobs, or put, get, register and remove them.", invoke_without_command=True)
app.command("put")(blob_upload.put)

BlobArgument = Annotated[str, typer.Argument(help="The blob's id, or its beginning.")]


@app.callback()
def blobs(
    context: typer.Context,
    limit: Annotated[int, typer.Option(min=1, help="At most so many.")] = 50,
    address: AddressOption = None,
    json: JsonOption = False,
) -> None:
    """List blobs, the newest first."""
    if not lists_only(context):
        return None
    with connect(address) as connection:
        answer = _list(connection, limit)
    if json:
        return print_json(answer)
    print_table(("blob", "state", "tier", "size", "type", "readers", "created"), map(_row, answer.blobs), "No blobs.")
    if answer.next_page_token:
        notice(f"There are more, {bytes_text(answer.total_bytes)} in all; --limit shows them.")
    return None


@app.command()
def get(
    blob: BlobArgument,
    out: Annotated[Path, typer.Option("--out", help="The file to write.")],
    force: Annotated[bool, typer.Option("--force", help="Overwrite the file if it exists.")] = False,
    address: AddressOption = None,
    json: JsonOption = False,
) -> None:
    """Write a blob's bytes to a file, checked by size and SHA-256."""
    from deviceops.common.v1 import image_pb2
    from deviceops.memory.v1 import memory_service_pb2

    if is_taken(out) and (out.is_dir() or not force):
        raise CliError(f"{out} exists; name another file" + ("" if out.is_dir() else ", or use --force"), USAGE)
    with connect(address) as connection:
        blob = ids.blob(connection, blob)
        answer = connection.memory.GetBlob(memory_service_pb2.GetBlobRequest(blob_id=blob))
        make_folder(out.parent)
        file = image_pb2.ImageFile(blob_id=blob, size_bytes=answer.blob.size_bytes, sha256=answer.blob.sha256)
        save_blob(connection, file, out, force=force)
    return print_json(answer) if json else emit(out)


@app.command()
def rm(
    blob: BlobArgument,
    only_if_unused: Annotated[
        bool, typer.Option("--only-if-unused", help="Refuse while a caller reads it or a job needs it.")
    ] = False,
    address: AddressOption = None,
    json: JsonOption = False,
) -> None:
    """Delete a blob. Of a registered one only the entry; the file stays."""
    from deviceops.memory.v1 import memory_service_pb2

    with connect(address) as connection:
        blob = ids.blob(connection, blob)
        request = memory_service_pb2.DeleteBlobRequest(blob_id=blob, only_if_unused=only_if_unused)
        answer = connection.memory.DeleteBlob(request)
    if json:
        return print_json(answer)
    return emit(f"{blob} is deleted{when_deleted(answer.holder_ids) if answer.deferred else ''}")


def when_deleted(holder_ids: Sequence[str]) -> str:
    """When a blob is removed whose delete is deferred, as the end of a sentence."""
    return f" together with {', '.join(holder_ids)}" if holder_ids else " when its last reader has left"


@app.command()
def register(
    file: Annotated[Path, typer.Argument(help="A file in one of the server's --blob-root folders, as in /dev/shm.")],
    name: Annotated[str, typer.Option("--id", help="The id that it shall have. [default: the server chooses]")] = "",
    generation: Annotated[int, typer.Option(min=0, help="Which edition this is; 0: one more than before.")] = 0,
    verify: Annotated[bool, typer.Option(help="Read and hash the content now.")] = True,
    media_type: Annotated[str | None, typer.Option(help="What it is. [default: by the file's ending]")] = None,
    address: AddressOption = None,
    json: JsonOption = False,
) -> None:
    """Let the server map a file of this machine, without a copy."""
    from deviceops.memory.v1 import blob_pb2, memory_service_pb2

    # Symbolic links stay: the server resolves them and checks the target.
    request = memory_service_pb2.RegisterBlobRequest(
        blob_id=name,
        file=blob_pb2.MappedFile(path=str(file.absolute())),
        media_type=blob_upload.media_type_of(file) if media_type is None else media_type,
        generation=generation,
        verify=verify,
    )
    with connect(address) as connection:
        answer = connection.memory.RegisterBlob(request)
    return print_json(answer) if json else emit(answer.blob.id)


def _list(connection: Connection, limit: int) -> ListBlobsResponse:
    from deviceops.memory.v1 import memory_service_pb2

    answer = memory_service_pb2.ListBlobsResponse()
    while limit > len(answer.blobs):
        size = min(limit - len(answer.blobs), LARGEST_PAGE)
        page = connection.memory.ListBlobs(
            memory_service_pb2.ListBlobsRequest(page_size=size, page_token=answer.next_page_token)
        )
        answer.blobs.extend(page.blobs)
        answer.next_page_token, answer.total_bytes = page.next_page_token, page.total_bytes
        if not page.next_page_token:
            break
    return answer


def _row(blob: Blob) -> tuple[str, ...]:
    from deviceops.memory.v1 import blob_pb2

    tier = word(blob_pb2.BlobTier.Name(blob.tier), "BLOB_TIER_")
    return (
        blob.id,
        word(blob_pb2.BlobState.Name(blob.state), "BLOB_STATE_"),
        f"{tier} {blob.device_id}".strip(),
        bytes_text(blob.size_bytes),
        blob.media_type or "–",
        str(blob.reader_count),
        local_time(blob.create_time),
    )
