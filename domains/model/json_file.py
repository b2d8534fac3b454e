"""Reads the small JSON files of a model's folder."""

from pathlib import Path
from typing import Any

import msgspec

from domains.errors import DataLoss, ErrorReason
from domains.model.regular_file import open_regular

MAX_BYTES = 1024 * 1024


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object of at most 1 MiB, at a path without symlinks. Raises MODEL_CORRUPT."""
    where = f"{path.parent.name}/{path.name}"
    try:
        with open_regular(path) as file:
            text = file.read(MAX_BYTES + 1)
    except FileNotFoundError:
        raise DataLoss(f"{where} is missing; restore the file", ErrorReason.MODEL_CORRUPT, file=where) from None
    except OSError as error:
        message = f"{where} cannot be read: {error.strerror}; restore the file"
        raise DataLoss(message, ErrorReason.MODEL_CORRUPT, file=where) from error
    if len(text) > MAX_BYTES:
        message = f"{where} is larger than {MAX_BYTES} bytes; replace the file"
        raise DataLoss(message, ErrorReason.MODEL_CORRUPT, file=where)
    try:
        return msgspec.json.decode(text, type=dict[str, Any])
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        message = f"{where} is no JSON object: {error}; replace the file"
        raise DataLoss(message, ErrorReason.MODEL_CORRUPT, file=where) from error
