"""Makes a model of components of others: the base of one, the VAE of another. Copies nothing; files stay where they are."""

from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace
from typing import NamedTuple

import msgspec
from msgspec.structs import replace

from domains.errors import DeviceOpsError, ErrorReason, FailedPrecondition, InvalidRequest, Violation, excerpt
from domains.model.component_config import read_config
from domains.model.families import FAMILIES, Family
from domains.model.fingerprint import hash_of
from domains.model.kind import ModelKind
from domains.model.model import Component, FileStamp, Model, ModelLayout, ModelState
from domains.model.part_fit import check_fit
from domains.model.shipped_files import shipped_files

MAX_PARTS = 16
_TEXT, _WORDS = "text_encoder", "tokenizer"
_WEIGHTS = ".safetensors"


class Recipe(msgspec.Struct, frozen=True, kw_only=True):
    """What to make a model of."""

    base_id: str
    taken: tuple[tuple[str, str], ...]
    """Component and the id of the model that it comes from."""
    omitted: tuple[str, ...] = ()
    """Components of the base that the model lacks."""


class _Taken(NamedTuple):
    component: Component
    stamps: tuple[FileStamp, ...]


def composed(blank: Model, recipe: Recipe, get: Callable[[str], Model]) -> Model:
    """The model. `blank`: its id and name. `get` raises MODEL_NOT_FOUND.

    Raises INVALID_FIELD (a component twice, or none of the family), DEPENDENCY_CYCLE, COMPONENT_MISSING, MODEL_INCOMPATIBLE
    (parts that do not fit each other), and the fault of a source that cannot be used.
    """
    _check_no_circle(blank.id, recipe, get)
    base = get(recipe.base_id)
    _check_usable(base)
    family = FAMILIES[base.family]
    _check_named(family, recipe)
    sources = _with_tokenizers(family, {name: get(model_id) for name, model_id in recipe.taken})
    parts = {component.id: _take(base, component.id, family) for component in base.components}
    parts |= {name: _take(source, name, family) for name, source in sources.items()}
    for name in recipe.omitted:
        parts.pop(name, None)
        parts.pop(name.replace(_TEXT, _WORDS), None)
    stamps = {stamp.path: stamp for part in parts.values() for stamp in part.stamps}
    model = replace(
        base,
        id=blank.id,
        display_name=blank.display_name,
        folder="",
        layout=ModelLayout.PARTS,
        components=tuple(part.component for part in parts.values()),
        size_bytes=sum(part.component.size_bytes for part in parts.values()),
        sha256=hash_of(stamp for path, stamp in stamps.items() if path.endswith(_WEIGHTS)),
        files=tuple(stamps.values()),
        embedded=False,
        known_prompts=(),
        metadata=(),
        version="",
        labels=blank.labels,
        base_id=recipe.base_id,
        taken=recipe.taken,
        update_time_s=blank.update_time_s,
        validate_time_s=0.0,
    )
    _check_fit(model)
    return model


def follows(model: Model, models: Mapping[str, Model]) -> Model:
    """A model of parts as its sources are now; with a problem where one is gone or does not fit any more."""

    def get(model_id: str) -> Model:
        if model_id in models:
            return models[model_id]
        message = f"model {model_id}, which it takes components from, is not known any more; scan again"
        raise FailedPrecondition(message, ErrorReason.COMPONENT_MISSING, model_id=model_id)

    try:
        return composed(model, Recipe(base_id=model.base_id, taken=model.taken), get)
    except DeviceOpsError as error:
        gone = error.reason is ErrorReason.COMPONENT_MISSING
        state = ModelState.MISSING if gone else ModelState.INCOMPATIBLE
        return replace(model, state=state, problem=error.message, reason=error.reason)


def _check_no_circle(model_id: str, recipe: Recipe, get: Callable[[str], Model]) -> None:
    """Raise DEPENDENCY_CYCLE if components of the model come, over others, from itself."""
    paths = [(model_id, name) for name in _sources(recipe)]
    seen: set[str] = set()
    while paths:
        path = paths.pop(0)
        if (last := path[-1]) == model_id:
            way = " → ".join(path)
            message = f"components of {model_id} would come from itself: {way}; name models that have files"
            raise FailedPrecondition(message, ErrorReason.DEPENDENCY_CYCLE, model_id=model_id, path=way)
        if last not in seen:
            # A missing source is reported when its component is taken.
            with suppress(DeviceOpsError):
                source = get(last)
                own = Recipe(base_id=source.base_id, taken=source.taken)
                paths += [(*path, name) for name in _sources(own) if name]
        seen.add(last)


def _sources(recipe: Recipe) -> list[str]:
    return [recipe.base_id, *(source for _, source in recipe.taken)]


def _check_usable(model: Model) -> None:
    if model.fault is not None:
        raise FailedPrecondition(f"model {model.id} cannot be used: {model.problem}", model.fault, model_id=model.id)
    if model.layout is ModelLayout.PARTS:
        message = f"model {model.id} is made of parts itself; name the models that its parts come from"
        raise FailedPrecondition(message, ErrorReason.MODEL_INCOMPATIBLE, model_id=model.id)


def _check_named(family: Family, recipe: Recipe) -> None:
    known = [part.id for part in family.parts if part.kind is not ModelKind.SCHEDULER]
    names = [name for name, _ in recipe.taken]
    wrong = [
        Violation(
            field=f"parts_source.components[{at}].component_id",
            message=f"{excerpt(name)!r} is no component of {family.id}, or is named twice; it has {', '.join(known)}",
            allowed=", ".join(known),
        )
        for at, name in enumerate(names)
        if name not in known or name in names[:at]
    ]
    if wrong:
        raise InvalidRequest(wrong)


def _with_tokenizers(family: Family, sources: Mapping[str, Model]) -> Mapping[str, Model]:
    """Adds the tokenizer of each text encoder."""
    brought = {
        words: source
        for name, source in sources.items()
        if name.startswith(_TEXT)
        and (words := name.replace(_TEXT, _WORDS)) not in sources
        and family.part(words)
        and any(component.id == words for component in source.components)
    }
    return {**sources, **brought}


def _take(source: Model, name: str, family: Family) -> _Taken:
    """A component of a model, with its files under paths that no other model's files have.

    Raises COMPONENT_MISSING, MODEL_INCOMPATIBLE.
    """
    component = next((one for one in source.components if one.id == name), None)
    if component is None:
        has = ", ".join(one.id for one in source.components) or "none"
        message = f"model {source.id} has no component {name}; it has {has}"
        raise FailedPrecondition(message, ErrorReason.COMPONENT_MISSING, model_id=source.id, component=name)
    alone = source.layout in (ModelLayout.FILE, ModelLayout.COMPONENT) and source.kind is not ModelKind.CHECKPOINT
    if not alone:
        _check_usable(source)
    in_file = source.layout is ModelLayout.FILE
    if in_file and not alone and name.startswith(_TEXT) and source.family != family.id:
        message = (
            f"the {name} of {source.id} is stored as {source.family} stores it; take it from a model of {family.id}"
        )
        raise FailedPrecondition(message, ErrorReason.MODEL_INCOMPATIBLE, model_id=source.id, component=name)
    paths = {path: _path(source, name, path) for path in component.files}
    stamps = [replace(source.stamp(path), path=new) for path, new in paths.items()]
    if in_file and alone:
        shipped = shipped_files(family.id, "", name)
        stamps += [
            FileStamp(path=f"{name}/{file}", real=str(path), size_bytes=path.stat().st_size)
            for file, path in shipped.items()
        ]
    taken = replace(
        component,
        files=tuple(stamp.path for stamp in stamps),
        layout=ModelLayout.FILE if in_file else component.layout,
    )
    return _Taken(taken, tuple(stamps))


def _path(source: Model, name: str, path: str) -> str:
    """Weights of a single file keep one path for all its components; the others lie in their component's folder."""
    if source.layout is ModelLayout.FILE and path.endswith(_WEIGHTS):
        return f"{source.id}{_WEIGHTS}"
    return f"{name}/{Path(path).name}"


def _check_fit(model: Model) -> None:
    """Raise MODEL_INCOMPATIBLE where one part does not fit the next, COMPONENT_MISSING for a part without a config."""
    with_weights = [component.id for component in model.components if component.parameter_count]
    configs = {name: SimpleNamespace(**read_config(model, name, "config.json")) for name in with_weights}
    check_fit(model.family, configs)
