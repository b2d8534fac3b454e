"""Says beforehand why a model cannot be converted. Reads headers and configs."""

import os
from collections.abc import Iterator
from pathlib import Path

from domains.errors import (
    DataLoss,
    ErrorReason,
    FailedPrecondition,
    InvalidRequest,
    Violation,
    excerpt,
)
from domains.model.blob_files import blobs_of
from domains.model.conversion import Conversion
from domains.model.inspect import findings_of
from domains.model.json_file import read_json
from domains.model.model import Model, ModelLayout, ModelState
from domains.model.naming import id_violations
from domains.model.publish import taken
from domains.model.quantized import quantization_of, quantized_tensor
from domains.model.roots import Roots
from domains.model.safetensors_header import read_header
from domains.model.weights_model import SUFFIX
from domains.reasons import Severity

_FOLDERS = (ModelLayout.DIFFUSERS, ModelLayout.PARTS)


def layout_after(asked: Conversion, model: Model) -> ModelLayout:
    """The layout of the result: DIFFUSERS, COMPONENT or FILE."""
    if asked.layout is ModelLayout.FILE or (asked.layout is None and model.layout is ModelLayout.FILE):
        return ModelLayout.FILE
    return ModelLayout.COMPONENT if model.layout is ModelLayout.COMPONENT else ModelLayout.DIFFUSERS


def check_conversion(asked: Conversion, model: Model, roots: Roots) -> Path:
    """The real path of the result.

    Raises INVALID_FIELD, UNSUPPORTED_COMBINATION, PATH_OUTSIDE_ROOTS, ID_TAKEN (the path), MODEL_CORRUPT,
    COMPONENT_MISSING.
    """
    if wrong := [*_fields(asked, model)]:
        raise InvalidRequest(wrong)
    target = roots.inside(asked.destination, "model_conversion.destination_path")
    _check_whole(model)
    if wrong := [*_combinations(asked, model), *_quantized(asked, model)]:
        raise InvalidRequest(wrong, ErrorReason.UNSUPPORTED_COMBINATION)
    if os.path.lexists(target):
        raise taken(target)
    return target


def _fields(asked: Conversion, model: Model) -> Iterator[Violation]:
    path, to_file = Path(asked.destination), layout_after(asked, model) is ModelLayout.FILE
    if not path.is_absolute():
        text = f"{excerpt(asked.destination)!r} is no absolute path; name the new file or folder from the root on"
        yield Violation(field="model_conversion.destination_path", message=text)
    elif to_file is not (path.suffix == SUFFIX):
        what = f"a single file is written, and its name ends in {SUFFIX}" if to_file else "a folder is written"
        text = f"{excerpt(path.name)!r} does not fit: {what}"
        yield Violation(field="model_conversion.destination_path", message=text)
    known = {component.id for component in model.components}
    for index, name in enumerate(asked.keep):
        if name not in known:
            text = f"model {model.id} has no component {excerpt(name)!r}; it has {', '.join(sorted(known)) or 'none'}"
            yield Violation(field=f"model_conversion.keep_component_ids[{index}]", message=text)
    yield from id_violations(asked.new_model_id, "model_conversion.new_model_id")


def _check_whole(model: Model) -> None:
    """Raise MODEL_CORRUPT or COMPONENT_MISSING for a model that is not whole."""
    if model.state is ModelState.CORRUPT:
        raise DataLoss(model.problem, ErrorReason.MODEL_CORRUPT, model_id=model.id)
    if model.fault is ErrorReason.COMPONENT_MISSING:
        raise FailedPrecondition(model.problem, ErrorReason.COMPONENT_MISSING, model_id=model.id)


def _combinations(asked: Conversion, model: Model) -> Iterator[Violation]:
    grave = next((one for one in findings_of(model) if one.severity is Severity.ERROR), None)
    if grave is not None:
        text = f"nothing is known of how its files go together: {grave.message}"
        yield Violation(field="model_conversion.model_id", message=text)
    if blobs_of(model):
        text = f"model {model.id} is read from blobs; write it to a folder of a model root and scan first"
        yield Violation(field="model_conversion.model_id", message=text)
    after = layout_after(asked, model)
    if model.layout is ModelLayout.FILE and after is ModelLayout.DIFFUSERS and model.state is not ModelState.AVAILABLE:
        text = f"model {model.id} is no whole checkpoint that this server computes; leave it empty: {model.problem}"
        yield Violation(field="model_conversion.format", message=text)
    if model.layout in _FOLDERS and after is ModelLayout.FILE:
        text = "the names that single files give to tensors are known for reading alone; only `diffusers` is written"
        yield Violation(field="model_conversion.format", message=text, allowed="diffusers")


def _quantized(asked: Conversion, model: Model) -> Iterator[Violation]:
    """Violations for quantized weights: their numbers need the scales beside them. A plain copy of the files is allowed."""
    if not asked.precision and layout_after(asked, model) in (model.layout, ModelLayout.COMPONENT):
        return
    field = "model_conversion.precision" if asked.precision else "model_conversion.format"
    for stamp in model.files:
        component = stamp.path.partition("/")[0]
        if asked.precision and component in asked.keep:
            continue
        if stamp.path.endswith("config.json") and (method := quantization_of(read_json(Path(stamp.real), stamp.path))):
            text = f"{component} is quantized with {method}, and this server has no conversion of that; leave it empty"
        elif stamp.path.endswith(SUFFIX) and (name := quantized_tensor(read_header(Path(stamp.real)).tensors)):
            what = f"quantized weights ({excerpt(name)}), which mean nothing without their scales"
            text = f"{stamp.path} has {what}; leave it empty"
        else:
            continue
        yield Violation(field=field, message=text)
        return
