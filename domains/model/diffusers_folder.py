"""Reads a model in the diffusers layout: `model_index.json`, and one folder for each component."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec

from domains.errors import DataLoss, DeviceOpsError, ErrorReason, FailedPrecondition
from domains.model.families import detect
from domains.model.fingerprint import Fingerprints
from domains.model.model import Component, Model, ModelState
from domains.model.safetensors_header import Header, read_header

INDEX = "model_index.json"
KNOWN_PROMPTS = "known_prompts.txt"
_MAX_JSON_BYTES = 1024 * 1024
_MAX_PROMPTS = 4000
_PICKLES = {".bin", ".ckpt", ".pt", ".pth", ".pkl"}
_WEIGHTLESS = ("tokenizer", "scheduler", "feature_extractor")

SCHEDULER_OF_CLASS = {
    "EulerDiscreteScheduler": "euler",
    "EulerAncestralDiscreteScheduler": "euler_a",
    "DDIMScheduler": "ddim",
    "DPMSolverMultistepScheduler": "dpmpp_2m",
    "UniPCMultistepScheduler": "unipc",
}
"""Our ids for the schedulers that models ship with. Others: the model has no default of its own."""

_PRECISION = {"F32": "float32", "F16": "float16", "BF16": "bfloat16", "F8_E4M3": "float8_e4m3fn"}


def read_folder(
    folder: Path,
    model_id: str,
    inside: Callable[[Path], Path],
    fingerprints: Fingerprints,
    *,
    embedded: bool = False,
    cancelled: Callable[[], bool] = lambda: False,
) -> Model:
    """What the folder holds. A damaged or unusable model is a value too, with its state and the problem.

    `inside` refuses a path that leads out of the roots. Raises what `inside` raises, and HashCancelled.
    """
    parts: list[Component] = []
    headers: dict[str, list[Header]] = {}
    try:
        index = read_json(inside(folder / INDEX))
        for name in _component_names(index):
            part, headers[name] = _component(folder, name, inside)
            parts.append(part)
        return _whole(folder, model_id, parts, headers, inside, fingerprints, embedded, cancelled)
    except DataLoss as error:
        return _unusable(folder, model_id, parts, ModelState.CORRUPT, error, embedded)
    except FailedPrecondition as error:
        return _unusable(folder, model_id, parts, ModelState.INCOMPATIBLE, error, embedded)


def _component_names(index: dict[str, Any]) -> list[str]:
    """Parts that the index names and that the pipeline really has: `[library, class]` with neither null."""
    return sorted(name for name, entry in index.items() if _is_component(name, entry))


def _is_component(name: str, entry: object) -> bool:
    return isinstance(entry, list) and len(entry) == 2 and None not in entry and name.isidentifier()


def _component(folder: Path, name: str, inside: Callable[[Path], Path]) -> tuple[Component, list[Header]]:
    place = inside(folder / name)
    if not place.is_dir():
        message = f"component {name} is missing: there is no folder {name}"
        raise FailedPrecondition(message, ErrorReason.COMPONENT_MISSING, component=name)
    files = sorted(inside(file) for file in place.iterdir() if file.is_file())
    weights = [file for file in files if file.suffix == ".safetensors"]
    if not weights and any(file.suffix in _PICKLES for file in files):
        message = f"component {name} has only pickle files, which can run code; convert them to safetensors"
        raise FailedPrecondition(message, ErrorReason.COMPONENT_MISSING, component=name)
    if not weights and name not in _WEIGHTLESS:
        message = f"component {name} has no safetensors file"
        raise FailedPrecondition(message, ErrorReason.COMPONENT_MISSING, component=name)
    headers = [read_header(file) for file in weights]
    dtypes = _weight_dtypes(name, headers)
    used = [file for file in files if file.suffix not in _PICKLES]
    return (
        Component(
            id=name,
            files=tuple(f"{name}/{file.name}" for file in used),
            size_bytes=sum(file.stat().st_size for file in used),
            parameter_count=sum(tensor.elements for header in headers for tensor in header.tensors),
            precision=_PRECISION.get(dtypes.pop(), "") if len(dtypes) == 1 else ("mixed" if dtypes else ""),
        ),
        headers,
    )


def _weight_dtypes(name: str, headers: list[Header]) -> set[str]:
    """Weights are floating point; only index buffers (CLIP's `position_ids`) are not."""
    weights = [t for header in headers for t in header.tensors if not t.name.endswith("position_ids")]
    for tensor in weights:
        if tensor.dtype not in _PRECISION:
            message = f"{name} has tensor {tensor.name!r} of dtype {tensor.dtype}; weights are {', '.join(_PRECISION)}"
            raise DataLoss(message, ErrorReason.MODEL_CORRUPT, component=name, tensor=tensor.name)
    return {tensor.dtype for tensor in weights}


def _whole(
    folder: Path,
    model_id: str,
    parts: list[Component],
    headers: dict[str, list[Header]],
    inside: Callable[[Path], Path],
    fingerprints: Fingerprints,
    embedded: bool,
    cancelled: Callable[[], bool],
) -> Model:
    names = {part.id for part in parts}
    unet = _config(folder, "unet", "config.json", names, inside)
    vae = _config(folder, "vae", "config.json", names, inside)
    scheduler = _config(folder, "scheduler", "scheduler_config.json", names, inside)
    keys = {tensor.name for header in headers.get("unet", []) for tensor in header.tensors}
    family, problem = detect(names, unet, keys)
    weights = [name for part in parts for name in part.files if name.endswith(".safetensors")]
    edge = _native_edge(unet, vae)
    return Model(
        id=model_id,
        display_name=folder.name,
        family=family,
        folder=str(folder),
        components=tuple(parts),
        size_bytes=sum(part.size_bytes for part in parts),
        sha256=fingerprints.of_model(folder, weights, cancelled),
        state=ModelState.AVAILABLE if family else ModelState.INCOMPATIBLE,
        problem=problem,
        native_width_px=edge,
        native_height_px=edge,
        prediction_type=str(scheduler.get("prediction_type", "epsilon")),
        default_scheduler=SCHEDULER_OF_CLASS.get(str(scheduler.get("_class_name", "")), ""),
        known_prompts=_known_prompts(folder, inside),
        embedded=embedded,
    )


def _native_edge(unet: dict[str, Any], vae: dict[str, Any]) -> int:
    """Latent size times the VAE's factor, 2 a downsampling."""
    latent, blocks = unet.get("sample_size"), vae.get("block_out_channels")
    return latent * 2 ** (len(blocks) - 1) if isinstance(latent, int) and isinstance(blocks, list) else 0


def _config(folder: Path, name: str, file: str, names: set[str], inside: Callable[[Path], Path]) -> dict[str, Any]:
    return read_json(inside(folder / name / file)) if name in names else {}


def read_json(path: Path) -> dict[str, Any]:
    """A small JSON object. Raises MODEL_CORRUPT."""
    where = f"{path.parent.name}/{path.name}"
    try:
        if path.stat().st_size > _MAX_JSON_BYTES:
            raise DataLoss(f"{where} is larger than {_MAX_JSON_BYTES} bytes", ErrorReason.MODEL_CORRUPT, file=where)
        return msgspec.json.decode(path.read_bytes(), type=dict[str, Any])
    except FileNotFoundError:
        raise DataLoss(f"{where} is missing", ErrorReason.MODEL_CORRUPT, file=where) from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise DataLoss(f"{where} is no JSON object: {error}", ErrorReason.MODEL_CORRUPT, file=where) from error


def _known_prompts(folder: Path, inside: Callable[[Path], Path]) -> tuple[str, ...]:
    file = folder / KNOWN_PROMPTS
    if not file.is_file() or (path := inside(file)).stat().st_size > _MAX_JSON_BYTES:
        return ()
    return tuple(line for line in path.read_text("utf-8", "replace").splitlines() if line)[:_MAX_PROMPTS]


def _unusable(
    folder: Path, model_id: str, parts: list[Component], state: ModelState, error: DeviceOpsError, embedded: bool
) -> Model:
    return Model(
        id=model_id,
        display_name=folder.name,
        family="",
        folder=str(folder),
        components=tuple(parts),
        size_bytes=sum(part.size_bytes for part in parts),
        sha256="",
        state=state,
        problem=error.message,
        embedded=embedded,
    )
