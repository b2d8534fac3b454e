"""Says what files are, for a caller who asks about a path or a model: reads headers and configs, and registers nothing."""

import asyncio
import os
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import msgspec

from domains.errors import ErrorReason, NotFound, excerpt
from domains.model.component_folder import is_pickle
from domains.model.detected_model import blank_model
from domains.model.diffusers_folder import INDEX, read_folder
from domains.model.families import FAMILIES
from domains.model.finding import ModelFinding
from domains.model.fingerprint import Fingerprints, HeadersOnly
from domains.model.kind import ModelKind
from domains.model.model import Model, ModelLayout, ModelState
from domains.model.naming import display_name, free_id_of
from domains.model.places import Form, forms
from domains.model.precision import text_of
from domains.model.roots import Roots
from domains.model.weights_model import SUFFIX, pickle_refusal, read_component_folder, read_file
from domains.reasons import Severity

_MAX_NAMED = 8


class Inspection(msgspec.Struct, frozen=True, kw_only=True):
    """What some files are."""

    model: Model
    findings: tuple[ModelFinding, ...]
    registered: bool
    """Whether the server knows it."""


class Inspector:
    """Inspects paths and known models. Files are read on a thread of its own."""

    def __init__(self, roots: Roots, fingerprints: Fingerprints, known: Callable[[], Iterable[Model]]) -> None:
        self._roots = roots
        self._hashes = HeadersOnly(fingerprints)
        self._known = known

    async def path(self, path: str) -> Inspection:
        """What lies at a path. Raises PATH_OUTSIDE_ROOTS, PATH_NOT_FOUND."""
        real = self._roots.inside(path, "path_source.path")
        if not real.exists():
            shown = excerpt(path)
            message = f"there is nothing at {shown!r}; mend the path"
            raise NotFound(message, ErrorReason.PATH_NOT_FOUND, path=shown)
        known = {model.folder: model for model in self._known()}.get(str(real))
        return await asyncio.to_thread(self._inspect, real, Path(path).name, known)

    async def model(self, known: Model) -> Inspection:
        """What the files of a known model are now; a model of parts or blobs is reported as the catalogue knows it."""
        if not known.folder:
            return Inspection(model=known, findings=tuple(findings_of(known)), registered=True)
        return await asyncio.to_thread(self._inspect, Path(known.folder), Path(known.folder).name, known)

    def _inspect(self, real: Path, name: str, known: Model | None) -> Inspection:
        shown = known.display_name if known else Path(name).stem if real.is_file() else display_name(real)
        model_id = known.id if known else free_id_of(shown, {model.id for model in self._known()})
        found = self._read(real, shown, model_id, known)
        return Inspection(model=found, findings=tuple(findings_of(found)), registered=known is not None)

    def _read(self, real: Path, name: str, model_id: str, known: Model | None) -> Model:
        if not real.exists():
            return _gone(known or blank_model(real, name, model_id, ModelLayout.FILE))
        if real.is_file():
            return _file(real, name, model_id)
        if (real / INDEX).is_file():
            inside = Path.resolve if known and known.embedded else self._roots.inside
            embedded = known is not None and known.embedded
            return read_folder(real, model_id, inside, self._hashes, embedded=embedded)
        if any(form is Form.COMPONENT for form, _ in forms(os.listdir(real))):
            return read_component_folder(real, model_id, self._roots.inside)
        return _no_model(real, name, model_id)


def _gone(known: Model) -> Model:
    text = f"{known.folder} is not there any more; put the files back and scan again"
    return msgspec.structs.replace(known, state=ModelState.MISSING, problem=text, reason=ErrorReason.COMPONENT_MISSING)


def _file(real: Path, name: str, model_id: str) -> Model:
    if is_pickle(real.name):
        problem = pickle_refusal(real.name)
    elif real.suffix == SUFFIX or not real.suffix:
        return read_file(real, name, model_id)
    else:
        problem = f"{real.name} is no safetensors file; this server reads no other format of weights"
    blank = blank_model(real, name, model_id, ModelLayout.FILE)
    return msgspec.structs.replace(blank, problem=problem, reason=ErrorReason.MODEL_INCOMPATIBLE)


def _no_model(real: Path, name: str, model_id: str) -> Model:
    """A folder of several models, or of none."""
    inner = sorted(file for form, file in forms(os.listdir(real)) if form is not Form.COMPONENT)
    named = ", ".join(inner[:_MAX_NAMED])
    what = f"inspect its files one by one: {named}" if inner else "it has neither model_index.json nor weights"
    blank = blank_model(real, name, model_id, ModelLayout.COMPONENT)
    problem = f"{name} is no model; {what}"
    return msgspec.structs.replace(blank, problem=problem, reason=ErrorReason.MODEL_INCOMPATIBLE)


def findings_of(model: Model) -> Iterator[ModelFinding]:
    """What is wrong with a model or worth knowing, the gravest first."""
    if model.problem:
        yield ModelFinding(severity=_gravity(model), reason=model.fault, message=model.problem)
    for text in model.warnings:
        yield ModelFinding(severity=Severity.WARNING, reason=ErrorReason.MODEL_INCOMPATIBLE, message=text)
    for text in (*model.remarks, *_unsaid(model)):
        yield ModelFinding(severity=Severity.INFO, message=text)
    for component in model.components:
        if len(component.mix) > 1:
            text = f"its weights are stored in {text_of(component.mix)}"
            yield ModelFinding(severity=Severity.INFO, field=component.id, message=text)


def _gravity(model: Model) -> Severity:
    """The severity of a model's problem: WARNING if it can still be registered, because it is whole but not computed yet."""
    whole = model.state is ModelState.INCOMPATIBLE and bool(model.components) and model.confidence is not None
    return Severity.WARNING if whole and model.reason is not ErrorReason.COMPONENT_MISSING else Severity.ERROR


def _unsaid(model: Model) -> Iterator[str]:
    """What headers cannot tell."""
    predicts = model.kind in (ModelKind.CHECKPOINT, ModelKind.REFINER, ModelKind.DENOISER)
    if model.family and predicts and not model.prediction_type:
        able = " or ".join(FAMILIES[model.family].prediction_types)
        yield f"its tensors do not tell whether it predicts {able}, and its metadata does not say"
    if len(model.compatible_families) > 1 and not model.family:
        yield f"its tensors are alike in {', '.join(model.compatible_families)}; they do not tell which one it was made for"
    if model.components:
        yield "what it needs in memory cannot be measured from headers alone; EstimateModel forecasts a load"
