"""Reads the small JSON files of a model's folder, for the scan and for the load."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO

from domains.errors import DataLoss, ErrorReason
from domains.model.header_json import refuse_half_characters
from domains.model.regular_file import open_regular

MAX_BYTES = 1024 * 1024

_STARTS_CODE = frozenset(
    {
        *("auto_map", "trust_remote_code", "custom_pipeline"),
        *(
            "attn_implementation",
            "_attn_implementation",
            "_attn_implementation_internal",
            "_attn_implementation_autoset",
        ),
    }
)
"""Keys that make transformers or diffusers fetch or run code beside their own. They are read as if absent, at any depth."""


def read_json(path: Path, shown: str = "") -> dict[str, Any]:
    """A JSON object of at most 1 MiB, at a path without symlinks; `shown` names it in messages. Raises MODEL_CORRUPT."""
    where = shown or f"{path.parent.name}/{path.name}"
    try:
        with open_regular(path) as file:
            return read_object(file, where)
    except FileNotFoundError:
        raise DataLoss(f"{where} is missing; restore the file", ErrorReason.MODEL_CORRUPT, file=where) from None
    except OSError as error:
        message = f"{where} cannot be read: {error.strerror}; restore the file"
        raise DataLoss(message, ErrorReason.MODEL_CORRUPT, file=where) from error


def read_object(opened: BinaryIO, shown: str, **facts: str) -> dict[str, Any]:
    """The JSON object in an open file, as Python reads it: diffusers itself writes `-Infinity`.

    Raises MODEL_CORRUPT with `facts`, and OSError.
    """
    facts = {"file": shown, **facts}
    text = opened.read(MAX_BYTES + 1)
    if len(text) > MAX_BYTES:
        message = f"{shown} is larger than {MAX_BYTES} bytes; replace the file"
        raise DataLoss(message, ErrorReason.MODEL_CORRUPT, **facts)
    try:
        found = json.loads(text, object_pairs_hook=_without_code)
    except (ValueError, RecursionError) as error:
        message = f"{shown} is no JSON object: {error}; replace the file"
        raise DataLoss(message, ErrorReason.MODEL_CORRUPT, **facts) from error
    if not isinstance(found, dict):
        message = f"{shown} is no JSON object but a {type(found).__name__}; replace the file"
        raise DataLoss(message, ErrorReason.MODEL_CORRUPT, **facts)
    return found


def class_name(config: Mapping[str, Any]) -> str:
    """The class that a config or an index names; of `[module, class]`, as custom code has it, the class. Empty: none."""
    named = config.get("_class_name")
    last = named[-1] if isinstance(named, list) and named else named
    return last if isinstance(last, str) else ""


def _without_code(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    refuse_half_characters(pairs)
    return {name: value for name, value in pairs if name not in _STARTS_CODE}
