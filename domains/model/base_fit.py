"""Says from what scans found whether a model can be added to another one: an adapter to its base, a VAE to a checkpoint."""

from collections.abc import Iterator

from domains.errors import ErrorReason
from domains.model.finding import ModelFinding
from domains.model.kind import ModelKind
from domains.model.model import Model
from domains.reasons import Severity

_WHOLE = (ModelKind.CHECKPOINT, ModelKind.REFINER)
_FIELD = "base_model_id"


def base_findings(model: Model, base: Model) -> Iterator[ModelFinding]:
    """Findings about using the model together with the base; empty: they fit, as far as headers tell."""
    if base.kind not in _WHOLE or not base.family:
        text = f"model {base.id} is no base: nothing can be added to a {str(base.kind).replace('_', ' ')}"
        yield ModelFinding(reason=ErrorReason.MODEL_INCOMPATIBLE, message=text, field=_FIELD)
        return
    if base.fault is not None:
        yield ModelFinding(reason=base.fault, message=f"base {base.id} cannot be used: {base.problem}", field=_FIELD)
    if model.kind in _WHOLE or model.kind is ModelKind.UNKNOWN:
        text = f"model {model.id} is added to no base: it stands by itself, or is of no known kind"
        yield ModelFinding(reason=ErrorReason.MODEL_INCOMPATIBLE, message=text, field=_FIELD)
        return
    fits = model.compatible_families or ((model.family,) if model.family else ())
    if not fits:
        text = f"the files of {model.id} do not tell which family it was made for; only a load finds whether it fits"
        yield ModelFinding(severity=Severity.WARNING, message=text, field=_FIELD)
    elif base.family not in fits:
        text = f"model {model.id} fits {', '.join(fits)}; base {base.id} is of {base.family}"
        yield ModelFinding(reason=ErrorReason.MODEL_INCOMPATIBLE, message=text, field=_FIELD)
