"""What an inspection or a validation has found about a model's files."""

import msgspec

from domains.errors import ErrorReason
from domains.reasons import Severity


class ModelFinding(msgspec.Struct, frozen=True, kw_only=True):
    """Something that is wrong with a model, or worth knowing."""

    reason: ErrorReason | None = None
    """None: nothing is wrong."""
    message: str
    field: str = ""
    """The tensor, file or component concerned. Empty: the whole model."""
    severity: Severity = Severity.ERROR
