"""Reads a model in the diffusers layout: `model_index.json`, and one folder for each component."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from msgspec.structs import replace

from domains.errors import DataLoss, DeviceOpsError, FailedPrecondition
from domains.model.component_folder import ComponentFiles, FilesIn, on_disk, read_component
from domains.model.families import FAMILIES
from domains.model.fingerprint import Stamping, hash_of
from domains.model.folder_evidence import evidence_of
from domains.model.folder_family import DENOISERS, Folder, Told, tell
from domains.model.json_file import MAX_BYTES, class_name, read_json
from domains.model.model import FileStamp, Model, ModelState
from domains.model.naming import display_name
from domains.model.regular_file import read_regular
from domains.model.sampler_names import of_class, schedule_of
from domains.model.scheduler_config import FILE, fault_in, is_flow, train_steps_of
from domains.stop import never

INDEX = "model_index.json"
KNOWN_PROMPTS = "known_prompts.txt"
_MAX_PROMPTS = 4000
_MAX_EDGE_PX = 65536
_NEEDED = {name for family in FAMILIES.values() for name in family.needs}
"""Components that some family needs."""

Inside = Callable[[Path], Path]
"""Returns the real path; raises for one outside of the roots."""


def read_folder(
    folder: Path,
    model_id: str,
    inside: Inside,
    fingerprints: Stamping,
    *,
    embedded: bool = False,
    cancelled: Callable[[], bool] = never,
    files: FilesIn | None = None,
) -> Model:
    """Read the folder. A damaged, unusable or unreadable model is returned too, with its state and the problem.

    `files` None: those on disk. Raises what `inside` raises, and HashCancelled.
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
        pipeline = _read_parts(folder, inside, files or on_disk(inside), parts)
        model = _whole(blank, pipeline, parts, inside, fingerprints, cancelled)
        model = replace(model, known_prompts=_known_prompts(folder, inside, on_disk=files is None))
    except DataLoss as error:
        model = replace(blank, state=ModelState.CORRUPT, problem=error.message)
    except FailedPrecondition as error:
        model = replace(blank, problem=error.message, reason=error.reason)
    except OSError as error:
        model = replace(blank, problem=f"{error.filename or folder} cannot be read: {error.strerror}")
    components = tuple(part.component for part in parts.values())
    return replace(model, components=components, size_bytes=sum(component.size_bytes for component in components))


def _read_parts(folder: Path, inside: Inside, files: FilesIn, parts: dict[str, ComponentFiles]) -> str:
    """Read the components into `parts`, so that those read before a fault are known. Returns the pipeline's class.

    A component that no family needs (a safety checker) may lack files or be damaged: it is left out.
    """
    index = read_json(inside(folder / INDEX), f"{folder.name}/{INDEX}")
    for name in sorted(name for name, entry in index.items() if _is_component(name, entry)):
        try:
            parts[name] = read_component(folder, name, inside, files)
        except (FailedPrecondition, DataLoss, OSError):
            if name in _NEEDED:
                raise
    return class_name(index)


def component_faults(folder: Path, inside: Inside) -> list[tuple[str, DeviceOpsError, bool]]:
    """Components of the index that cannot be read: its name, why, and whether families need it. Raises MODEL_CORRUPT."""
    faults: list[tuple[str, DeviceOpsError, bool]] = []
    index = read_json(inside(folder / INDEX), f"{folder.name}/{INDEX}")
    for name in sorted(name for name, entry in index.items() if _is_component(name, entry)):
        try:
            read_component(folder, name, inside)
        except DeviceOpsError as error:
            faults.append((name, error, name in _NEEDED))
    return faults


def _is_component(name: str, entry: object) -> bool:
    """Whether the entry is a component: `[library, class]` without null. An identifier is no path; `_name` is metadata."""
    return (
        isinstance(entry, list)
        and len(entry) == 2
        and None not in entry
        and name.isidentifier()
        and not name.startswith("_")
    )


def _whole(
    blank: Model,
    pipeline: str,
    parts: Mapping[str, ComponentFiles],
    inside: Inside,
    fingerprints: Stamping,
    cancelled: Callable[[], bool],
) -> Model:
    """The model, where all its parts could be read."""
    folder = Path(blank.folder)
    configs = {name: _config(folder, name, inside) for name in (*DENOISERS, "vae", "scheduler") if name in parts}
    scheduler = configs.get("scheduler", {})
    told = _family(pipeline, parts, configs)
    real = {file: place for part in parts.values() for file, place in part.real.items()}
    weights = {file: place for file, place in real.items() if file.endswith(".safetensors")}
    stamps = fingerprints.stamps(folder, weights, cancelled)
    others = (
        FileStamp(path=file, real=str(place), size_bytes=place.stat().st_size)
        for file, place in real.items()
        if file not in weights
    )
    edge = _native_edge_px(told.family, configs)
    return replace(
        blank,
        family=told.family,
        variant=told.variant,
        kind=FAMILIES[told.family].kind if told.family else blank.kind,
        evidence=told.evidence,
        sha256=hash_of(stamps),
        state=ModelState.INCOMPATIBLE if told.problem else ModelState.AVAILABLE,
        problem=told.problem,
        native_width_px=edge,
        native_height_px=edge,
        prediction_type=prediction_type_of(told.family, scheduler),
        default_sampler=of_class(class_name(scheduler)),
        default_sigma_schedule=schedule_of(scheduler) if scheduler else "",
        train_steps=train_steps_of(scheduler) if told.family and scheduler else 0,
        files=(*stamps, *others),
    )


def _config(folder: Path, name: str, inside: Inside) -> Mapping[str, Any]:
    file = "scheduler_config.json" if name == "scheduler" else "config.json"
    config = read_json(inside(folder / name / file), f"{name}/{file}")
    return config | {"_class_name": class_name(config)} if "_class_name" in config else config


def _family(pipeline: str, parts: Mapping[str, ComponentFiles], configs: Mapping[str, Mapping[str, Any]]) -> Told:
    """The family, or why there is none."""
    tensors = {name: parts[name].shapes for name in DENOISERS if name in parts}
    folder = Folder(components=set(parts), pipeline=pipeline, configs=configs, tensors=tensors)
    told = tell(folder)
    told = replace(told, evidence=evidence_of(folder, told.weighed))
    problem = scheduler_problem(told.family, configs.get("scheduler", {})) if told.family else ""
    return Told(problem=problem, evidence=told.evidence) if problem else told


def scheduler_problem(family: str, scheduler: Mapping[str, Any]) -> str:
    """Why no sampler can follow the scheduler. Empty: one can."""
    if fault := fault_in(scheduler):
        return fault.message
    if (flow := FAMILIES[family].flow) is not is_flow(scheduler):
        what = "is a flow model" if flow else "is no flow model"
        return f"{family} {what}, and {FILE} has _class_name={class_name(scheduler)!r:.64}: they do not fit"
    return ""


def prediction_type_of(family: str, scheduler: Mapping[str, Any]) -> str:
    """What the denoiser predicts: what its family always does, else what the scheduler says. Empty: not known."""
    if not family:
        return ""
    able = FAMILIES[family].prediction_types
    return able[0] if len(able) == 1 else scheduler.get("prediction_type", "epsilon")


def _native_edge_px(family: str, configs: Mapping[str, Mapping[str, Any]]) -> int:
    """Latent size times the VAE's factor, 2 a downsampling. 0: the files do not say, or nothing believable.

    Transformers take any size, and their configs name none: then the family's counts.
    """
    if family and FAMILIES[family].denoiser.id == "transformer":
        return FAMILIES[family].native_px
    latent = configs.get("unet", {}).get("sample_size")
    blocks = configs.get("vae", {}).get("block_out_channels")
    if not isinstance(latent, int) or not isinstance(blocks, list) or not 1 <= len(blocks) <= 8:
        return 0
    edge = latent * 2 ** (len(blocks) - 1)
    return edge if 0 < edge <= _MAX_EDGE_PX else 0


def _known_prompts(folder: Path, inside: Inside, *, on_disk: bool) -> tuple[str, ...]:
    """The lines of known_prompts.txt; none where the file is too large or cannot be read: the model works without it."""
    file = folder / KNOWN_PROMPTS
    try:
        if on_disk and not file.is_file():
            return ()
        lines = read_regular(inside(file), MAX_BYTES).decode("utf-8", "replace").splitlines()
    except OSError:
        return ()
    return tuple(line.strip() for line in lines if line.strip())[:_MAX_PROMPTS]
