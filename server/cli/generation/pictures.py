"""Writes the pictures of a job from the server's blobs to files."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from server.cli.calls.connection import Connection
from server.cli.calls.following import is_loss
from server.cli.console.failure import CliError, explain_failure
from server.cli.console.printing import KeptOutput
from server.cli.memory.blob_file import save

if TYPE_CHECKING:
    from deviceops.common.v1.image_pb2 import ImageFile
    from deviceops.inference.v1.generated_image_pb2 import GeneratedImage


def save_pictures(
    connection: Connection,
    images: Iterable[GeneratedImage],
    files: Sequence[Path],
    *,
    force: bool,
    told: KeptOutput | None,
) -> None:
    """Write each picture to the file of its index, and print its path to `told` (None: not at all).

    Writes all pictures that it can, then raises `CliError`, which says for each picture that was not made or cannot be
    read what to do.
    """
    failures: list[str] = []
    for image in sorted(images, key=lambda one: one.index):
        if not image.HasField("file"):
            failures.append(f"picture {image.index + 1} was not made: {explain_failure(image.failure)}")
            continue
        try:
            save_blob(connection, image.file, files[image.index], force=force)
        except CliError as error:
            failures.append(error.message)
        else:
            if told:
                told.emit(files[image.index])
    if failures:
        raise CliError("\n".join(failures))


def save_blob(connection: Connection, file: ImageFile, path: Path, *, force: bool) -> None:
    """Write one blob to a file. Raises `CliError`; for a lost server it names the command that gets the blob later."""
    import grpc

    try:
        save(connection, file, path, force=force)
    except grpc.RpcError as error:
        if not is_loss(error):
            raise
        command = f"deviceops blobs get {file.blob_id} --out {shlex.quote(str(path))}"
        text = f"the connection to {connection.address} was lost before {path} was complete; when the server is back: "
        raise CliError(text + command) from error
