"""A validation of a model's files: what is asked for, and what was found."""

from collections.abc import Sequence
from enum import IntEnum

import msgspec

from domains.model.execution import AS_USUAL, Execution
from domains.model.finding import ModelFinding
from domains.model.model import Model
from domains.reasons import Severity

GRAVITY = (Severity.CRITICAL, Severity.ERROR, Severity.WARNING, Severity.INFO)
MAX_FINDINGS = 200
"""Most findings of a report: the contract's limit."""


class Depth(IntEnum):
    """How closely a validation looks. Each depth includes those before it."""

    HEADER = 1
    """Headers, sizes, missing parts."""
    CHECKSUM = 2
    """Every byte, against the noted hashes."""
    VALUES = 3
    """Every weight, for NaN and infinity."""
    EXECUTE = 4
    """One small step on a device."""


class Validation(msgspec.Struct, frozen=True, kw_only=True):
    """What to check."""

    model_id: str
    depth: Depth = Depth.CHECKSUM
    component_ids: tuple[str, ...] = ()
    """Empty: all."""
    expected_sha256: str = ""
    """The hash that the model must have. Empty: the noted one."""
    base_model_id: str = ""
    """The model that it must go together with. Empty: none."""
    device_id: str = ""
    """The device that it must fit. Empty: none."""
    execution: Execution = AS_USUAL
    """How it shall compute there."""


class ValidationReport(msgspec.Struct, frozen=True, kw_only=True):
    """What a validation has found."""

    model: Model
    """The model as known after it."""
    depth: Depth
    """Depth that was reached: less than asked for if a finding made a deeper check pointless."""
    findings: tuple[ModelFinding, ...] = ()
    """The gravest first."""
    tensor_count: int = 0
    device_id: str = ""
    """Where the model was executed. Empty: nowhere."""
    non_finite_count: int | None = None
    """None: values were not looked at."""
    read_bytes: int = 0
    duration_s: float = 0.0

    @property
    def valid(self) -> bool:
        """Whether no finding is an error."""
        return not any(one.severity is Severity.ERROR for one in self.findings)


def with_findings(report: ValidationReport, more: Sequence[ModelFinding]) -> ValidationReport:
    """The report with more findings, the gravest first."""
    every = sorted((*report.findings, *more), key=lambda one: GRAVITY.index(one.severity))
    return msgspec.structs.replace(report, findings=tuple(every[:MAX_FINDINGS]))
