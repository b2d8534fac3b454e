"""Writes safetensors files of any size that take no room on the disk: a real header, and a hole for the weights."""

import json
import math
from collections.abc import Mapping
from pathlib import Path

from domains.model.families.sign import Tensors
from domains.model.safetensors_header import DTYPE_BITS
from tests.domains.model import published


def write_header(
    path: Path,
    shapes: Tensors,
    dtype: str = "F16",
    *,
    metadata: Mapping[str, object] | None = None,
    dtypes: Mapping[str, str] | None = None,
) -> Path:
    """A file with these tensors; `dtypes`: those of tensors whose name begins with the key."""
    entries: dict[str, object] = {"__metadata__": dict(metadata)} if metadata else {}
    at = 0
    for name, shape in shapes.items():
        kind = next((kind for start, kind in (dtypes or {}).items() if name.startswith(start)), dtype)
        end = at + math.prod(shape) * DTYPE_BITS[kind] // 8
        entries[name] = {"dtype": kind, "shape": list(shape), "data_offsets": [at, end]}
        at = end
    text = json.dumps(entries).encode()
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        file.truncate(8 + len(text) + at)
    return path


def write_published(path: Path, header: str, dtype: str = "F16", **metadata: str) -> Path:
    """A file with the header of a published model."""
    return write_header(path, published.header(header), dtype, metadata=metadata)
