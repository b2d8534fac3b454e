"""Judges a model that a field names beside the generation's own: an adapter, an upscaler, a detector."""

from typing import Any

from domains.errors import ErrorReason, FailedPrecondition
from domains.model.kind import ModelKind
from domains.model.model import Model, ModelState


def check_named(model: Model, kind: ModelKind, name: str, field: str, facts: dict[str, Any] | None = None) -> None:
    """Raise MODEL_INCOMPATIBLE if the model is of another kind, and the scan's fault if it is unusable.

    `name`: the kind's, for people. `field`: the one that names the model. `facts`: of the error; None: the model's id.
    """
    told = {"model_id": model.id} if facts is None else facts
    if model.kind is not kind:
        what = str(model.kind).replace("_", " ") or "model of no known kind"
        message = f"model {model.id} is a {what} and no {name}; name one in `{field}`"
        raise FailedPrecondition(message, ErrorReason.MODEL_INCOMPATIBLE, **told)
    if model.state is not ModelState.AVAILABLE:
        message = f"{name} {model.id} cannot be used: {model.problem}; scan again when its file is whole"
        raise FailedPrecondition(message, model.fault, **told)
