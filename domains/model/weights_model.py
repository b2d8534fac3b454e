"""Reads a single safetensors file, or the folder of one component, as a model: headers and configs only."""

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from msgspec.structs import replace

from domains.errors import DataLoss, ErrorReason, FailedPrecondition
from domains.model.detected_model import Weights, blank_model, model_of
from domains.model.json_file import read_json
from domains.model.kind import ModelKind
from domains.model.model import FileStamp, Model, ModelLayout, ModelState
from domains.model.naming import display_name
from domains.model.regular_file import open_regular, state_of
from domains.model.safetensors_header import Header, header_of, read_header
from domains.model.single_file import completed
from domains.model.weight_choice import choose

_CONFIGS = ("config.json", "adapter_config.json")
SUFFIX = ".safetensors"


def read_file(real: Path, name: str, model_id: str, path: str = "") -> Model:
    """The model in the file at a real path; `name`: its name for people. A damaged one is returned too, as CORRUPT.

    `path`: name of the file in a model that lies in no folder. Empty: it lies where the file is.
    """
    blank = blank_model(real, name, model_id, ModelLayout.FILE)
    if path:
        blank = replace(blank, folder="")
    try:
        header, stamp = _header(real)
        stamp = replace(stamp, path=path or stamp.path)
    except DataLoss as error:
        return _damaged(blank, error)
    model = model_of(blank, Weights(tensors=header.tensors, metadata=header.metadata, files=(stamp,)))
    if model.kind is not ModelKind.CHECKPOINT or model.state is not ModelState.AVAILABLE:
        return model
    try:
        return completed(model, {tensor.name: tensor.shape for tensor in header.tensors})
    except OSError as error:
        return replace(blank, problem=f"{error.filename or real.name} cannot be read: {error.strerror}")


def _header(real: Path) -> tuple[Header, FileStamp]:
    try:
        with open_regular(real) as file:
            return header_of(file, real), FileStamp(path=real.name, real=str(real), state=state_of(file))
    except OSError as error:
        message = f"{real.name} cannot be read: {error.strerror}; restore the file"
        raise DataLoss(message, ErrorReason.MODEL_CORRUPT, file=real.name) from error


def read_component_folder(
    folder: Path, model_id: str, inside: Callable[[Path], Path], names: Sequence[str] | None = None
) -> Model:
    """The model in the folder of one component: its weights (one file, or shards) and its config.

    A damaged or incomplete one is returned too, with its state and the problem. `names`: of the files in it; None: those on
    disk. Raises what `inside` raises.
    """
    blank = blank_model(folder, display_name(folder), model_id, ModelLayout.COMPONENT)
    try:
        return model_of(blank, _weights(folder, inside, sorted(os.listdir(folder)) if names is None else names))
    except DataLoss as error:
        return _damaged(blank, error)
    except FailedPrecondition as error:
        return replace(blank, problem=error.message, reason=error.reason)
    except OSError as error:
        return replace(blank, problem=f"{error.filename or folder} cannot be read: {error.strerror}")


def _weights(folder: Path, inside: Callable[[Path], Path], names: Sequence[str]) -> Weights:
    chosen = choose(folder.name, names, lambda index: read_json(inside(folder / index), f"{folder.name}/{index}"))
    real = {name: inside(folder / name) for name in (*chosen, *(name for name in _CONFIGS if name in names))}
    headers = {name: read_header(real[name]) for name in chosen}
    return Weights(
        tensors=tuple(tensor for header in headers.values() for tensor in header.tensors),
        metadata={key: value for header in headers.values() for key, value in header.metadata.items()},
        config=_config(real, folder.name),
        files=tuple(FileStamp(path=name, real=str(place)) for name, place in real.items()),
    )


def _config(real: Mapping[str, Path], folder: str) -> Mapping[str, object]:
    name = next((name for name in _CONFIGS if name in real), "")
    return read_json(real[name], f"{folder}/{name}") if name else {}


def _damaged(blank: Model, error: DataLoss) -> Model:
    return replace(blank, state=ModelState.CORRUPT, problem=error.message)


def pickle_refusal(name: str) -> str:
    """The refusal of a file that only unpickling could read, with the remedy."""
    return (
        f"{name} is a pickle, which can run code when it is opened; this server never opens one: fetch the model as "
        f"safetensors, or convert it with `deviceops models convert {name}` and scan again"
    )
