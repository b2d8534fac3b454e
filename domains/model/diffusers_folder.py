"""Reads a model in the diffusers layout: `model_index.json`, and one folder for each component."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from msgspec.structs import replace

from domains.errors import DataLoss, FailedPrecondition
from domains.model.component_folder import ComponentFiles, read_component
from domains.model.families import detect
from domains.model.fingerprint import Fingerprints
from domains.model.json_file import MAX_BYTES, read_json
from domains.model.model import Model, ModelState
from domains.model.naming import display_name
from domains.model.sampler_names import of_class, schedule_of

INDEX = "model_index.json"
KNOWN_PROMPTS = "known_prompts.txt"
_MAX_PROMPTS = 4000
_MAX_EDGE_PX = 65536
_DISPENSABLE = ("safety_checker", "feature_extractor", "image_encoder")
"""Parts that published folders often name and lack, and that no family of ours needs to draw."""
_PREDICTIONS = ("epsilon", "v_prediction", "sample")

Inside = Callable[[Path], Path]
"""Gives the real path, or refuses one that leads out of the roots."""


def read_folder(
    folder: Path,
    model_id: str,
    inside: Inside,
    fingerprints: Fingerprints,
    *,
    embedded: bool = False,
    cancelled: Callable[[], bool] = lambda: False,
) -> Model:
    """What the folder holds. A damaged, unusable or unreadable model is a value too, with its state and the problem.

    Raises what `inside` raises, and HashCancelled.
    """
    blank = Model(
        id=model_id,
        display_name=display_name(folder),
        family="",
        folder=str(folder),
        components=(),
        size_bytes=0,
        sha256="",
        state=ModelState.INCOMPATIBLE,
        embedded=embedded,
    )
    parts: dict[str, ComponentFiles] = {}
    try:
        _read_parts(folder, inside, parts)
        model = _whole(blank, parts, inside, fingerprints, cancelled)
    except DataLoss as error:
        model = replace(blank, state=ModelState.CORRUPT, problem=error.message)
    except FailedPrecondition as error:
        model = replace(blank, problem=error.message)
    except OSError as error:
        model = replace(blank, problem=f"{error.filename or folder} cannot be read: {error.strerror}")
    components = tuple(part.component for part in parts.values())
    return replace(model, components=components, size_bytes=sum(component.size_bytes for component in components))


def _read_parts(folder: Path, inside: Inside, parts: dict[str, ComponentFiles]) -> None:
    """Into `parts`, so that what was read before a fault is still told."""
    index = read_json(inside(folder / INDEX))
    for name in sorted(name for name, entry in index.items() if _is_component(name, entry)):
        try:
            parts[name] = read_component(folder, name, inside)
        except FailedPrecondition:
            if name not in _DISPENSABLE:
                raise


def _is_component(name: str, entry: object) -> bool:
    """Whether the pipeline really has it: `[library, class]` with neither null. An identifier is no path."""
    return isinstance(entry, list) and len(entry) == 2 and None not in entry and name.isidentifier()


def _whole(
    blank: Model,
    parts: Mapping[str, ComponentFiles],
    inside: Inside,
    fingerprints: Fingerprints,
    cancelled: Callable[[], bool],
) -> Model:
    """The model, where all its parts could be read."""
    folder = Path(blank.folder)
    configs = {name: _config(folder, name, inside) for name in ("unet", "vae", "scheduler") if name in parts}
    scheduler = configs.get("scheduler", {})
    family, problem = _family(parts, configs)
    files = [file for part in parts.values() for file in part.component.files if file.endswith(".safetensors")]
    edge = _native_edge_px(configs)
    return replace(
        blank,
        family=family,
        sha256=fingerprints.of_model(folder, files, cancelled),
        state=ModelState.AVAILABLE if family else ModelState.INCOMPATIBLE,
        problem=problem,
        native_width_px=edge,
        native_height_px=edge,
        prediction_type=scheduler.get("prediction_type", "epsilon") if family else "",
        default_sampler=of_class(str(scheduler.get("_class_name", ""))),
        default_sigma_schedule=schedule_of(scheduler) if scheduler else "",
        known_prompts=_known_prompts(folder, inside),
    )


def _config(folder: Path, name: str, inside: Inside) -> Mapping[str, Any]:
    return read_json(inside(folder / name / ("scheduler_config.json" if name == "scheduler" else "config.json")))


def _family(parts: Mapping[str, ComponentFiles], configs: Mapping[str, Mapping[str, Any]]) -> tuple[str, str]:
    """The family, or empty and why not."""
    tensor_names = parts["unet"].tensor_names if "unet" in parts else set[str]()
    family, problem = detect(set(parts), configs.get("unet", {}), tensor_names)
    predicts = configs.get("scheduler", {}).get("prediction_type", "epsilon")
    if family and predicts not in _PREDICTIONS:
        known = ", ".join(_PREDICTIONS)
        return "", f"scheduler_config.json has the prediction_type {str(predicts)[:64]!r}; known: {known}"
    return family, problem


def _native_edge_px(configs: Mapping[str, Mapping[str, Any]]) -> int:
    """Latent size times the VAE's factor, 2 a downsampling. 0: the files do not say, or nothing believable."""
    latent = configs.get("unet", {}).get("sample_size")
    blocks = configs.get("vae", {}).get("block_out_channels")
    if not isinstance(latent, int) or not isinstance(blocks, list) or not 1 <= len(blocks) <= 8:
        return 0
    edge = latent * 2 ** (len(blocks) - 1)
    return edge if 0 < edge <= _MAX_EDGE_PX else 0


def _known_prompts(folder: Path, inside: Inside) -> tuple[str, ...]:
    """One a line. A list that is too large, or that cannot be read, is no reason to refuse a model that draws."""
    file = folder / KNOWN_PROMPTS
    try:
        if not file.is_file() or (path := inside(file)).stat().st_size > MAX_BYTES:
            return ()
        lines = path.read_text("utf-8", "replace").splitlines()
    except OSError:
        return ()
    return tuple(line.strip() for line in lines if line.strip())[:_MAX_PROMPTS]
