"""Makes a model of what a detection found in a file or in the folder of one component."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import msgspec

from domains.errors import ErrorReason
from domains.model.detect.detect import detect
from domains.model.detect.evidence import Detection, Part, Subject
from domains.model.families import CONTROLLED, FAMILIES
from domains.model.folder_family import not_computed
from domains.model.kind import ModelKind
from domains.model.model import Component, FileStamp, Model, ModelLayout, ModelState
from domains.model.precision import amounts_of
from domains.model.safetensors_header import TensorEntry

MAX_METADATA = 64
"""Most entries of a file's metadata that are kept."""
_MAX_VALUE_BYTES = 1024


class Weights(msgspec.Struct, frozen=True, kw_only=True):
    """The headers of the weight files that belong together."""

    tensors: tuple[TensorEntry, ...]
    metadata: Mapping[str, str]
    config: Mapping[str, object] = {}
    """config.json beside them. Empty: none."""
    files: tuple[FileStamp, ...]
    """The weight files, and the others of their folder."""


def detected(weights: Weights) -> Detection:
    """What the weights are."""
    shapes = {tensor.name: tensor.shape for tensor in weights.tensors}
    return detect(Subject(tensors=shapes, metadata=weights.metadata, config=weights.config))


def model_of(blank: Model, weights: Weights) -> Model:
    """The model, with what was found in its headers. `blank`: its id, name, place and layout."""
    found = detected(weights)
    components = _components(found, weights)
    reason, problem = problem_of(found, blank.layout)
    native = FAMILIES[found.family].native_px if found.family and found.kind is ModelKind.CHECKPOINT else 0
    return msgspec.structs.replace(
        blank,
        kind=found.kind,
        family=found.family,
        variant=found.variant,
        compatible_families=found.compatible,
        components=components,
        size_bytes=sum(component.size_bytes for component in components),
        state=ModelState.INCOMPATIBLE if problem else ModelState.AVAILABLE,
        problem=problem,
        reason=reason,
        native_width_px=native,
        native_height_px=native,
        prediction_type=found.prediction_type,
        evidence=found.evidence,
        remarks=found.notes,
        warnings=found.warnings,
        metadata=_kept(weights.metadata),
        version=found.version,
        token=found.token,
        files=weights.files,
    )


def _components(found: Detection, weights: Weights) -> tuple[Component, ...]:
    names = tuple(stamp.path for stamp in weights.files)
    by_name = {tensor.name: tensor for tensor in weights.tensors}
    # The tensors of an unknown file are listed as one component.
    parts = found.parts or (Part(id="weights", kind=ModelKind.UNKNOWN),)
    return tuple(
        _component(part, names, [by_name[name] for name in part.tensors] if part.tensors else weights.tensors)
        for part in parts
    )


def _component(part: Part, files: tuple[str, ...], tensors: Sequence[TensorEntry]) -> Component:
    amounts = amounts_of(tensors)
    return Component(
        id=part.id,
        kind=part.kind,
        architecture=part.architecture,
        files=files,
        size_bytes=amounts.bytes,
        parameter_count=amounts.elements,
        precision="mixed" if len(amounts.mix) > 1 else "".join(name for name, _ in amounts.mix),
        mix=amounts.mix,
    )


def problem_of(found: Detection, layout: ModelLayout) -> tuple[ErrorReason | None, str]:
    """Why the engine cannot use it: reason and message."""
    if found.kind is ModelKind.UNKNOWN:
        text = "nothing in it is of a kind that the server knows; InspectModel tells what was looked for"
        return ErrorReason.MODEL_INCOMPATIBLE, text
    if found.missing:
        lacks = ", ".join(found.missing)
        text = f"it lacks {lacks}, which a whole {FAMILIES[found.family].display_name} model has; add the missing parts"
        return ErrorReason.COMPONENT_MISSING, text
    problem = _not_used(found, layout)
    return ErrorReason.MODEL_INCOMPATIBLE if problem else None, problem


def _not_used(found: Detection, layout: ModelLayout) -> str:
    """Why the engine cannot use a model whose files are complete. Empty: it can."""
    if found.kind is ModelKind.LORA and layout is ModelLayout.FILE:
        return ""
    if found.kind is ModelKind.TEXTUAL_INVERSION and layout is ModelLayout.FILE:
        if t5 := next((name for name in _matched(found) if name.startswith("t5")), ""):
            return f"it has vectors for T5 ({t5}); this server teaches words to CLIP alone"
        family = FAMILIES[found.family]
        return "" if family.learned_words else f"it is read by {family.display_name}, with which none is served yet"
    what = str(found.kind).replace("_", " ")
    if found.kind is ModelKind.CONTROLNET:
        others = [name for name in found.compatible if name not in CONTROLLED]
        if not others and _original_names(found):
            return (
                "its tensors have their original names; this server reads those of diffusers: convert it with diffusers"
            )
        if not others and layout is ModelLayout.FILE and not _tells_config(found):
            return "it has no config.json, which says how it reads maps; keep it in a folder with the published one"
        return f"it guides {', '.join(others)}, whose ControlNets this server does not compute yet" if others else ""
    if found.kind is ModelKind.T2I_ADAPTER:
        own = any(key.startswith("adapter.") for one in found.evidence if one.decisive for key in one.matched)
        lacks = "its tensors have their original names; this server reads those of diffusers: convert it with diffusers"
        return "" if own else lacks
    if found.kind is ModelKind.IMAGE_PROMPT_ADAPTER and found.variant == "face_id":
        return "it is made for faces, which a face recogniser must find; this server has none"
    if found.kind is ModelKind.IMAGE_PROMPT_ADAPTER and layout is ModelLayout.FILE:
        return ""
    if found.kind in (ModelKind.IMAGE_ENCODER, ModelKind.DETECTOR):
        return ""
    if found.kind is ModelKind.UPSCALER:
        return _not_enlarging(found)
    if found.kind in (ModelKind.CHECKPOINT, ModelKind.REFINER):
        family = FAMILIES[found.family]
        return not_computed(family, family.variant(found.variant))
    if layout is ModelLayout.COMPONENT and found.kind in (ModelKind.DENOISER, ModelKind.VAE, ModelKind.TEXT_ENCODER):
        return f"it is a {what} alone; this server loads it only as part of a folder in the diffusers layout yet"
    return f"it is of the kind {what}, which this server does not use yet"


def _not_enlarging(found: Detection) -> str:
    """Why the engine cannot enlarge pictures with an upscaler. Empty: it can."""
    architecture = found.parts[0].architecture
    if architecture not in ("RRDBNet", "SRVGGNetCompact"):
        return f"it is an upscaler of the architecture {architecture}, which this server does not compute yet"
    if any(key.startswith("model.") for key in _matched(found)):
        return "its tensors have ESRGAN's old names; this server reads those of Real-ESRGAN: convert it"
    return ""


def _tells_config(found: Detection) -> bool:
    """Whether a ControlNet's file alone says how it reads maps. Those of U-Nets are made like their model; those of Z-Image
    as two published ones, which have six blocks at least."""
    if "z_image" in found.compatible:
        return any("control_layers.5." in key for key in _matched(found))
    return not set(found.compatible) <= {"sd3", "flux1"}


def _original_names(found: Detection) -> bool:
    """Whether the tensors of a ControlNet are named as its authors' code names them."""
    return any(key.startswith("input_hint_block.") for key in _matched(found))


def _matched(found: Detection) -> Iterator[str]:
    """The keys that decided the detection."""
    return (key for one in found.evidence if one.decisive for key in one.matched)


def _kept(metadata: Mapping[str, str]) -> tuple[tuple[str, str], ...]:
    first = sorted(metadata.items())[:MAX_METADATA]
    return tuple((_cut(name), _cut(value)) for name, value in first)


def _cut(text: str) -> str:
    return text.encode()[:_MAX_VALUE_BYTES].decode("utf-8", "ignore")


def blank_model(place: Path, name: str, model_id: str, layout: ModelLayout) -> Model:
    """A model of which only the place is known."""
    return Model(
        id=model_id,
        display_name=name,
        family="",
        kind=ModelKind.UNKNOWN,
        folder=str(place),
        layout=layout,
        components=(),
        size_bytes=0,
        sha256="",
        state=ModelState.INCOMPATIBLE,
    )
