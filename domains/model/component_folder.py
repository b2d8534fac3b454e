"""Reads one component's folder: its files, and the headers of its weight files."""

import os
from collections.abc import Callable, Mapping
from pathlib import Path

import msgspec

from domains.errors import DataLoss, ErrorReason, FailedPrecondition, excerpt
from domains.model.families.sign import Tensors
from domains.model.json_file import read_json
from domains.model.model import Component
from domains.model.precision import PRECISION, amounts_of
from domains.model.safetensors_header import TensorEntry, read_header
from domains.model.weight_choice import choose

_PICKLES = {".bin", ".ckpt", ".pt", ".pth", ".pkl"}
_WEIGHTLESS = (*("tokenizer", "tokenizer_2", "tokenizer_3"), "scheduler", "feature_extractor", "image_processor")


class ComponentFiles(msgspec.Struct, frozen=True, kw_only=True):
    """The contents of a component's files."""

    component: Component
    tensors: tuple[TensorEntry, ...]
    """Tensors of all its weight files."""
    real: Mapping[str, Path]
    """Real location of each of the component's `files`: a path without symlinks, inside the roots."""

    @property
    def shapes(self) -> Tensors:
        """Shapes by tensor name."""
        return {tensor.name: tensor.shape for tensor in self.tensors}


FilesIn = Callable[[Path], Mapping[str, Path] | None]
"""Returns the real paths of the files in a folder, by name, and raises for one outside of the roots. None: no folder."""


def on_disk(inside: Callable[[Path], Path]) -> FilesIn:
    """The files of folders on disk. A symlink may not lead out, and keeps its name: caches link to files named by hash."""

    def files(folder: Path) -> Mapping[str, Path] | None:
        place = inside(folder)
        if not place.is_dir():
            return None
        return {entry.name: inside(entry) for entry in sorted(place.iterdir()) if entry.is_file()}

    return files


def read_component(
    folder: Path, name: str, inside: Callable[[Path], Path], files: FilesIn | None = None
) -> ComponentFiles:
    """Read the component `name` of the model in `folder`. `files` None: those on disk.

    Raises COMPONENT_MISSING, MODEL_CORRUPT, MODEL_INCOMPATIBLE, what `inside` raises, and OSError.
    """
    real = (files or on_disk(inside))(folder / name)
    if real is None:
        message = f"component {name} is missing: there is no folder {name}"
        raise FailedPrecondition(message, ErrorReason.COMPONENT_MISSING, component=name)
    weights = choose(name, list(real), lambda index: read_json(real[index], f"{name}/{index}"))
    if not weights and name not in _WEIGHTLESS:
        raise _no_weights(name, list(real))
    tensors = _tensors(name, {file: read_header(real[file]).tensors for file in weights})
    used = [file for file in real if file in weights or not _is_weights(file)]
    amounts = amounts_of(tensors)
    component = Component(
        id=name,
        files=tuple(f"{name}/{file}" for file in used),
        size_bytes=sum(real[file].stat().st_size for file in used),
        parameter_count=amounts.elements,
        precision=_precision(name, tensors),
        mix=amounts.mix,
    )
    return ComponentFiles(component=component, tensors=tensors, real={f"{name}/{file}": real[file] for file in used})


def is_pickle(name: str) -> bool:
    """Whether a file of this name needs unpickling."""
    return os.path.splitext(name)[1].lower() in _PICKLES


def _is_weights(file: str) -> bool:
    suffix = Path(file).suffix
    return suffix == ".safetensors" or is_pickle(file)


def _tensors(name: str, of_file: Mapping[str, tuple[TensorEntry, ...]]) -> tuple[TensorEntry, ...]:
    """Tensors of all files. Raises MODEL_CORRUPT for a tensor in two files, because either could count."""
    where: dict[str, str] = {}
    for file, tensors in of_file.items():
        for tensor in tensors:
            if (other := where.setdefault(tensor.name, file)) != file:
                message = f"{name} has the tensor {excerpt(tensor.name)!r} in {other} and in {file}; fetch both again"
                raise DataLoss(message, ErrorReason.MODEL_CORRUPT, component=name, tensor=tensor.name)
    return tuple(tensor for tensors in of_file.values() for tensor in tensors)


def _no_weights(name: str, files: list[str]) -> FailedPrecondition:
    if any(map(is_pickle, files)):
        message = f"component {name} has only pickle files, which can run code; convert them to safetensors"
    else:
        message = f"component {name} has no safetensors file with weights"
    return FailedPrecondition(message, ErrorReason.COMPONENT_MISSING, component=name)


def _precision(name: str, tensors: tuple[TensorEntry, ...]) -> str:
    """The stored precision. The load decides which tensors a module uses; weights without floats are refused here."""
    stored = {PRECISION[tensor.dtype] for tensor in tensors if tensor.dtype in PRECISION}
    if tensors and not stored:
        dtypes = ", ".join(sorted({tensor.dtype for tensor in tensors}))
        message = f"{name} has weights of dtype {dtypes} alone; weights are {', '.join(PRECISION)}"
        raise FailedPrecondition(message, ErrorReason.MODEL_INCOMPATIBLE, component=name, dtypes=dtypes)
    return "mixed" if len(stored) > 1 else "".join(stored)
