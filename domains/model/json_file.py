"""Reads the small JSON files of a model's folder."""

from pathlib import Path
from typing import Any

import msgspec

from domains.errors import DataLoss, ErrorReason

MAX_BYTES = 1024 * 1024


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object of at most 1 MiB. Raises MODEL_CORRUPT, and OSError where the system refuses to read it."""
    where = f"{path.parent.name}/{path.name}"
    if not path.is_file():
        # Also a folder or a pipe of that name: reading a pipe would wait for ever.
        raise DataLoss(f"{where} is missing; restore the file", ErrorReason.MODEL_CORRUPT, file=where)
    with path.open("rb") as file:
        text = file.read(MAX_BYTES + 1)
    if len(text) > MAX_BYTES:
        message = f"{where} is larger than {MAX_BYTES} bytes; replace the file"
        raise DataLoss(message, ErrorReason.MODEL_CORRUPT, file=where)
    try:
        return msgspec.json.decode(text, type=dict[str, Any])
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        message = f"{where} is no JSON object: {error}; replace the file"
        raise DataLoss(message, ErrorReason.MODEL_CORRUPT, file=where) from error
