"""Sends a picture file of this machine: small ones inside the request, larger ones as a blob."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from domains.limits import INLINE_BYTES
from server.cli.calls.connection import Connection
from server.cli.console.failure import USAGE, CliError
from server.cli.memory.blob_upload import upload

if TYPE_CHECKING:
    from deviceops.common.v1.image_pb2 import ImageInput


def input_image(connection: Connection, file: Path) -> ImageInput:
    """The file as a request names it. Raises `CliError` if it cannot be read."""
    from deviceops.common.v1 import image_pb2

    try:
        with file.open("rb") as stream:
            data = stream.read(INLINE_BYTES + 1)
            if len(data) <= INLINE_BYTES:
                return image_pb2.ImageInput(data=data)
            return image_pb2.ImageInput(blob_id=upload(connection, file, stream).blob.id)
    except OSError as error:
        raise CliError(f"cannot read {file}: {error.strerror}", USAGE) from error
