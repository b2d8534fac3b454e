"""Makes a whole model of a checkpoint in one file: adds the configs and tokenizers that a diffusers folder would have.

A folder beside the file, `<name>.components/<component>/`, gives what a model needs other than published ones; where it has
nothing for a component, the shipped files count (`shipped_files`).
"""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from msgspec.structs import replace

from domains.errors import DataLoss, ErrorReason
from domains.model.component_config import read_config
from domains.model.diffusers_folder import prediction_type_of, scheduler_problem
from domains.model.families import FAMILIES, Family, Part
from domains.model.families.sign import Tensors
from domains.model.json_file import class_name
from domains.model.kind import ModelKind
from domains.model.model import Component, FileStamp, Model, ModelLayout, ModelState
from domains.model.sampler_names import of_class, schedule_of
from domains.model.scheduler_config import train_steps_of
from domains.model.shipped_files import CLIP_WORDS, shipped_files
from domains.model.tensor_settings import settings_of

BESIDE = ".components"
"""End of the name of the folder beside a file."""
_MAX_FILES = 64

Files = Mapping[str, Path]
"""Real paths by name."""


def beside(file: Path) -> Path:
    """The folder with files of a checkpoint's components."""
    return Path(beside_path(str(file)))


def beside_path(file: str) -> str:
    """The path of that folder. Text, because a scan asks for each of thousands of files."""
    return os.path.splitext(file)[0] + BESIDE


def completed(model: Model, tensors: Tensors) -> Model:
    """The model with all its components, each with its config; with a problem, if something is missing or does not fit."""
    family = FAMILIES[model.family]
    given = {part.id: _beside(Path(model.folder), part.id) if model.folder else {} for part in family.parts}
    parts = [part for part in family.parts if _belongs(part, model)]
    files = {part.id: given[part.id] or shipped_files(model.family, model.variant, part.id) for part in parts}
    lacking = [part for part in parts if not files[part.id] or _other_words(family, part, given, tensors)]
    if lacking:
        return replace(
            model,
            state=ModelState.INCOMPATIBLE,
            reason=ErrorReason.COMPONENT_MISSING,
            problem=_lacks(model, [part.id for part in lacking]),
        )
    stamps = [
        FileStamp(path=f"{name}/{file}", real=str(path), size_bytes=path.stat().st_size)
        for name, some in files.items()
        for file, path in some.items()
    ]
    whole = replace(
        model,
        components=tuple(_component(part, model, files[part.id], bool(given[part.id]), tensors) for part in parts),
        files=(*model.files, *stamps),
    )
    return _scheduled(whole, assumed=not given["scheduler"] and not model.prediction_type)


def _belongs(part: Part, model: Model) -> bool:
    """Whether the model has the component: it is in the file, or works for one that is."""
    there = {component.id for component in model.components}
    if part.kind is ModelKind.TOKENIZER:
        return part.id.replace("tokenizer", "text_encoder") in there
    return part.kind is ModelKind.SCHEDULER or part.id in there


def _beside(file: Path, component: str) -> Files:
    """The files that lie beside the checkpoint for a component. Links are left out: they could lead anywhere."""
    folder = beside(file) / component
    if not folder.is_dir() or folder.is_symlink() or folder.parent.is_symlink():
        return {}
    found = (path for path in sorted(folder.iterdir()) if path.is_file() and not path.is_symlink())
    return {path.name: path for path, _ in zip(found, range(_MAX_FILES), strict=False)}


def _other_words(family: Family, part: Part, given: Mapping[str, Files], tensors: Tensors) -> bool:
    """Whether the text encoder has another vocabulary than the shipped tokenizer."""
    encoder = family.part(part.id.replace("tokenizer", "text_encoder"))
    if part.kind is not ModelKind.TOKENIZER or given[part.id] or encoder is None:
        return False
    ends = "token_embedding.weight"
    found = (shape for name, shape in tensors.items() if name.startswith(encoder.prefixes) and name.endswith(ends))
    return any(shape[:1] != (CLIP_WORDS,) for shape in found)


def _lacks(model: Model, lacking: list[str]) -> str:
    names = ", ".join(lacking)
    if not model.folder:
        return f"it lacks {names}: take them from another model with RegisterModel"
    folder = beside(Path(model.folder)).name
    return (
        f"it lacks {names}: give the tokenizer of its text encoder: put the files (tokenizer.json and tokenizer_config.json)"
        f" into {folder}/{lacking[0]}/ beside the file and scan again, or take them from another model with RegisterModel"
    )


def _component(part: Part, model: Model, files: Files, given: bool, tensors: Tensors) -> Component:
    """The component with its config; `given`: the caller's files, which are not changed."""
    names = tuple(f"{part.id}/{name}" for name in files)
    there = next((one for one in model.components if one.id == part.id), None)
    settings = {} if given else dict(_settings(part, model, tensors))
    text = json.dumps(settings, sort_keys=True) if settings else ""
    if there is None:
        size = sum(path.stat().st_size for path in files.values())
        return Component(
            id=part.id, kind=part.kind, files=names, size_bytes=size, parameter_count=0, precision="", settings=text
        )
    return replace(there, files=(*there.files, *names), layout=ModelLayout.FILE, settings=text)


def _settings(part: Part, model: Model, tensors: Tensors) -> Mapping[str, Any]:
    if part.kind is ModelKind.SCHEDULER:
        known = model.prediction_type and not FAMILIES[model.family].flow
        return {"prediction_type": model.prediction_type} if known else {}
    return settings_of(model.family, part.id, tensors)


def _scheduled(model: Model, *, assumed: bool) -> Model:
    """The model with what its scheduler's config says; `assumed`: that is the usual one of its family."""
    try:
        scheduler = read_config(model, "scheduler", "scheduler_config.json")
    except DataLoss as error:
        return replace(model, state=ModelState.CORRUPT, problem=error.message)
    if problem := scheduler_problem(model.family, scheduler):
        return replace(model, state=ModelState.INCOMPATIBLE, problem=problem, reason=ErrorReason.MODEL_INCOMPATIBLE)
    predicts = prediction_type_of(model.family, scheduler)
    able = " or ".join(FAMILIES[model.family].prediction_types)
    remark = (
        f"its tensors do not tell whether it predicts {able}; {predicts} is assumed, as most models of its family do"
    )
    return replace(
        model,
        remarks=(*model.remarks, remark) if assumed and predicts != able else model.remarks,
        prediction_type=predicts,
        default_sampler=of_class(class_name(scheduler)),
        default_sigma_schedule=schedule_of(scheduler),
        train_steps=train_steps_of(scheduler),
    )
