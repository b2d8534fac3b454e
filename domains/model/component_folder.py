"""Reads one component's folder: which files it has, and what the headers of its weight files say."""

from collections.abc import Callable
from pathlib import Path

import msgspec

from domains.errors import DataLoss, ErrorReason, FailedPrecondition
from domains.model.model import Component
from domains.model.safetensors_header import Header, TensorEntry, read_header

_PICKLES = {".bin", ".ckpt", ".pt", ".pth", ".pkl"}
_WEIGHTLESS = ("tokenizer", "tokenizer_2", "scheduler", "feature_extractor", "image_processor")

_PRECISION = {"F32": "float32", "F16": "float16", "BF16": "bfloat16", "F8_E4M3": "float8_e4m3fn"}


class ComponentFiles(msgspec.Struct, frozen=True, kw_only=True):
    """A component as its files show it."""

    component: Component
    tensors: tuple[TensorEntry, ...]
    """Of all its weight files."""

    @property
    def tensor_names(self) -> set[str]:
        """What its weights are called."""
        return {tensor.name for tensor in self.tensors}


def read_component(folder: Path, name: str, inside: Callable[[Path], Path]) -> ComponentFiles:
    """The component `name` of the model in `folder`.

    Raises COMPONENT_MISSING, MODEL_CORRUPT, what `inside` raises, and OSError.
    """
    place = inside(folder / name)
    if not place.is_dir():
        message = f"component {name} is missing: there is no folder {name}"
        raise FailedPrecondition(message, ErrorReason.COMPONENT_MISSING, component=name)
    files = _files(place, inside)
    weights = [file for file in files if file.endswith(".safetensors")]
    headers = _without_copies({file: read_header(inside(place / file)) for file in weights})
    if not headers and name not in _WEIGHTLESS:
        raise _no_weights(name, files)
    tensors = tuple(tensor for header in headers.values() for tensor in header.tensors)
    used = [file for file in files if file in headers or not _is_weights(file)]
    component = Component(
        id=name,
        files=tuple(f"{name}/{file}" for file in used),
        size_bytes=sum((place / file).stat().st_size for file in used),
        parameter_count=sum(tensor.elements for tensor in tensors),
        precision=_precision(name, tensors),
    )
    return ComponentFiles(component=component, tensors=tensors)


def _files(place: Path, inside: Callable[[Path], Path]) -> list[str]:
    """Names of its files. A symlink may not lead out, and keeps its name: caches link to files named by hash."""
    files = sorted(entry for entry in place.iterdir() if entry.is_file())
    for file in files:
        inside(file)
    return [file.name for file in files]


def _is_weights(file: str) -> bool:
    suffix = Path(file).suffix
    return suffix == ".safetensors" or suffix in _PICKLES


def _without_copies(headers: dict[str, Header]) -> dict[str, Header]:
    """Leave out a file whose tensors are all in one with a shorter name: `x.fp16.safetensors` beside `x.safetensors`."""
    kept: dict[str, Header] = {}
    seen: set[str] = set()
    for file in sorted(headers, key=lambda file: (len(file), file)):
        names = {tensor.name for tensor in headers[file].tensors}
        if not names <= seen:
            kept[file] = headers[file]
        seen |= names
    return kept


def _no_weights(name: str, files: list[str]) -> FailedPrecondition:
    if any(Path(file).suffix in _PICKLES for file in files):
        message = f"component {name} has only pickle files, which can run code; convert them to safetensors"
    else:
        message = f"component {name} has no safetensors file with weights"
    return FailedPrecondition(message, ErrorReason.COMPONENT_MISSING, component=name)


def _precision(name: str, tensors: tuple[TensorEntry, ...]) -> str:
    """Weights are floating point; only index buffers (CLIP's `position_ids`) are not."""
    weights = [tensor for tensor in tensors if not tensor.name.endswith("position_ids")]
    for tensor in weights:
        if tensor.dtype not in _PRECISION:
            message = f"{name} has tensor {tensor.name!r} of dtype {tensor.dtype}; weights are {', '.join(_PRECISION)}"
            raise DataLoss(message, ErrorReason.MODEL_CORRUPT, component=name, tensor=tensor.name)
    stored = {_PRECISION[tensor.dtype] for tensor in weights}
    return "mixed" if len(stored) > 1 else "".join(stored)
