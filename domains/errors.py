"""Every error that a caller can receive.

    DeviceOpsError                    reason · message · facts
    ├── InvalidRequest                mend the request (carries *all* violations)
    ├── NotFound                      give up
    ├── AlreadyExists                 choose another id
    ├── FailedPrecondition            change the state first
    ├── Aborted                       retry at a higher level
    ├── ResourceExhausted             wait `retry_after_s`, or ask for less
    ├── DeadlineExceeded              maybe retry
    ├── DataLoss                      replace the file
    ├── Unavailable                   retry
    ├── Unauthenticated               fix configuration
    ├── PermissionDenied              fix configuration
    ├── NotSupported                  –
    │   └── NotServed                 leave the named fields out (carries *all* violations)
    └── InternalError                 retry once; its text never comes from an unexpected exception

A family is what the caller should do; `ErrorReason` says what happened. `FAMILY_OF` ties each reason to one family, and
a test compares that table, the contract's enum and the gRPC codes. Facts are attributes: no code parses a message.
"""

from collections.abc import Iterable, Mapping, Sequence
from enum import StrEnum
from typing import ClassVar

import msgspec

_SHOWN = 256
"""Characters of a caller's or a file's own words that a message or a fact shows."""


def excerpt(words: object) -> str:
    """What a caller or a file says, short enough for a message; the cut is shown as "…"."""
    text = str(words)
    return text if len(text) <= _SHOWN else f"{text[: _SHOWN - 1]}…"


class ErrorReason(StrEnum):
    """Reasons of errors. The names are those of the contract's `ErrorReason`, without its prefix."""

    INVALID_FIELD = "INVALID_FIELD"
    UNSUPPORTED_COMBINATION = "UNSUPPORTED_COMBINATION"
    BAD_IMAGE = "BAD_IMAGE"
    DEVICE_NOT_FOUND = "DEVICE_NOT_FOUND"
    MEMORY_POOL_NOT_FOUND = "MEMORY_POOL_NOT_FOUND"
    MODEL_NOT_FOUND = "MODEL_NOT_FOUND"
    LOADED_MODEL_NOT_FOUND = "LOADED_MODEL_NOT_FOUND"
    BLOB_NOT_FOUND = "BLOB_NOT_FOUND"
    RESERVATION_NOT_FOUND = "RESERVATION_NOT_FOUND"
    JOB_NOT_FOUND = "JOB_NOT_FOUND"
    SESSION_NOT_FOUND = "SESSION_NOT_FOUND"
    WORKFLOW_NOT_FOUND = "WORKFLOW_NOT_FOUND"
    POLICY_NOT_FOUND = "POLICY_NOT_FOUND"
    PATH_NOT_FOUND = "PATH_NOT_FOUND"
    NODE_NOT_FOUND = "NODE_NOT_FOUND"
    WITHHELD_IMAGE_NOT_FOUND = "WITHHELD_IMAGE_NOT_FOUND"
    JOB_EXPIRED = "JOB_EXPIRED"
    ID_TAKEN = "ID_TAKEN"
    REQUEST_ID_REUSED = "REQUEST_ID_REUSED"
    MODEL_NOT_LOADED = "MODEL_NOT_LOADED"
    MODEL_INCOMPATIBLE = "MODEL_INCOMPATIBLE"
    COMPONENT_MISSING = "COMPONENT_MISSING"
    DEPENDENCY_CYCLE = "DEPENDENCY_CYCLE"
    DEVICE_DISABLED = "DEVICE_DISABLED"
    ILLEGAL_STATE = "ILLEGAL_STATE"
    BLOB_IN_USE = "BLOB_IN_USE"
    RESERVATION_EXPIRED = "RESERVATION_EXPIRED"
    METHOD_DISABLED = "METHOD_DISABLED"
    CONTENT_BLOCKED = "CONTENT_BLOCKED"
    ETAG_MISMATCH = "ETAG_MISMATCH"
    PREEMPTED = "PREEMPTED"
    DEVICE_LOST = "DEVICE_LOST"
    MODEL_UNLOADED = "MODEL_UNLOADED"
    DEVICE_OUT_OF_MEMORY = "DEVICE_OUT_OF_MEMORY"
    HOST_OUT_OF_MEMORY = "HOST_OUT_OF_MEMORY"
    STORAGE_FULL = "STORAGE_FULL"
    BUDGET_EXCEEDED = "BUDGET_EXCEEDED"
    QUEUE_FULL = "QUEUE_FULL"
    QUOTA_EXCEEDED = "QUOTA_EXCEEDED"
    RATE_LIMITED = "RATE_LIMITED"
    MESSAGE_TOO_LARGE = "MESSAGE_TOO_LARGE"
    QUEUE_TIMEOUT = "QUEUE_TIMEOUT"
    LOAD_TIMEOUT = "LOAD_TIMEOUT"
    RUN_TIMEOUT = "RUN_TIMEOUT"
    MODEL_CORRUPT = "MODEL_CORRUPT"
    BLOB_CORRUPT = "BLOB_CORRUPT"
    CHECKPOINT_CORRUPT = "CHECKPOINT_CORRUPT"
    STARTING = "STARTING"
    DRAINING = "DRAINING"
    DEVICE_RECOVERING = "DEVICE_RECOVERING"
    WORKER_RESTARTING = "WORKER_RESTARTING"
    CLASSIFIER_UNAVAILABLE = "CLASSIFIER_UNAVAILABLE"
    TOKEN_MISSING = "TOKEN_MISSING"
    TOKEN_INVALID = "TOKEN_INVALID"
    PATH_OUTSIDE_ROOTS = "PATH_OUTSIDE_ROOTS"
    SCOPE_MISSING = "SCOPE_MISSING"
    NOT_SUPPORTED_ON_DEVICE = "NOT_SUPPORTED_ON_DEVICE"
    FEATURE_NOT_INSTALLED = "FEATURE_NOT_INSTALLED"
    NOT_IMPLEMENTED = "NOT_IMPLEMENTED"
    DRIVER_ERROR = "DRIVER_ERROR"
    STORAGE_FAILED = "STORAGE_FAILED"
    NUMERIC_FAILURE = "NUMERIC_FAILURE"
    INVARIANT_BROKEN = "INVARIANT_BROKEN"


class Violation(msgspec.Struct, frozen=True, kw_only=True):
    """One thing wrong with a request."""

    field: str
    """Path in the request, in contract names: `generation.sampling.steps`. Empty: the request as a whole."""
    message: str
    """What is wrong and what would be right, in one sentence."""
    allowed: str = ""
    """The range or the choices, for people and programs: `1..1000`. Empty: not expressible."""


class DeviceOpsError(Exception):
    """Base of all errors. `reason` is stable, `message` is for people, `facts` hold each value in the message."""

    default_reason: ClassVar[ErrorReason] = ErrorReason.INVARIANT_BROKEN

    retry_after_s: float | None = None
    """Seconds until the same call may work, where they are known."""
    violations: tuple[Violation, ...] = ()
    """Wrong or unserved parts of the request, by field; empty: the request is not at fault."""

    def __init__(self, message: str, reason: ErrorReason | None = None, **facts: object) -> None:
        super().__init__(message)
        self.message = message
        self.reason = reason or self.default_reason
        self.facts: Mapping[str, str] = {name: str(value) for name, value in facts.items()}

    def __str__(self) -> str:
        return f"{self.reason}: {self.message}"


class InvalidRequest(DeviceOpsError):
    """The request can never work as it is. Carries all violations."""

    default_reason = ErrorReason.INVALID_FIELD

    def __init__(self, violations: Iterable[Violation], reason: ErrorReason | None = None, **facts: object) -> None:
        self.violations = tuple(violations)
        super().__init__(_text(self.violations), reason, **facts)


class NotFound(DeviceOpsError):
    """The thing does not exist (any more)."""

    default_reason = ErrorReason.JOB_NOT_FOUND


class AlreadyExists(DeviceOpsError):
    """The id belongs to another thing already."""

    default_reason = ErrorReason.ID_TAKEN


class FailedPrecondition(DeviceOpsError):
    """The system's state forbids the call; the same call works after the state has changed."""

    default_reason = ErrorReason.ILLEGAL_STATE


class Aborted(DeviceOpsError):
    """Another caller or process was faster; begin again one level higher."""

    default_reason = ErrorReason.ETAG_MISMATCH


class ResourceExhausted(DeviceOpsError):
    """Not enough memory, disk, quota or room in the queue."""

    default_reason = ErrorReason.QUOTA_EXCEEDED

    def __init__(
        self, message: str, reason: ErrorReason | None = None, *, retry_after_s: float | None = None, **facts: object
    ) -> None:
        super().__init__(message, reason, **facts)
        self.retry_after_s = retry_after_s


class DeadlineExceeded(DeviceOpsError):
    """The work took longer than the caller or the configuration allows."""

    default_reason = ErrorReason.RUN_TIMEOUT


class DataLoss(DeviceOpsError):
    """Bytes on disk differ from what they should be."""

    default_reason = ErrorReason.MODEL_CORRUPT


class Unavailable(DeviceOpsError):
    """The call cannot work now; the same call will work by itself later."""

    default_reason = ErrorReason.STARTING


class Unauthenticated(DeviceOpsError):
    """No token, or a wrong one."""

    default_reason = ErrorReason.TOKEN_MISSING


class PermissionDenied(DeviceOpsError):
    """Configuration forbids it."""

    default_reason = ErrorReason.PATH_OUTSIDE_ROOTS


class NotSupported(DeviceOpsError):
    """This device, installation or version cannot do it."""

    default_reason = ErrorReason.NOT_SUPPORTED_ON_DEVICE


class NotServed(NotSupported):
    """This server does not serve these fields or values of the contract yet. Carries all of them."""

    default_reason = ErrorReason.NOT_IMPLEMENTED

    def __init__(self, violations: Iterable[Violation], **facts: object) -> None:
        self.violations = tuple(violations)
        super().__init__(_text(self.violations), None, **facts)


class InternalError(DeviceOpsError):
    """A fault of the server or the driver."""


def _text(violations: Iterable[Violation]) -> str:
    return "; ".join(f"{v.field}: {v.message}" if v.field else v.message for v in violations)


def refusal(wrong: Sequence[Violation], unserved: Sequence[Violation] = ()) -> InvalidRequest | NotServed:
    """The error for a request with wrong or unserved parts: wrong ones go first."""
    return InvalidRequest([*unserved, *wrong]) if wrong else NotServed(unserved)


FAMILY_OF: Mapping[ErrorReason, type[DeviceOpsError]] = {
    reason: family
    for family, reasons in {
        InvalidRequest: "INVALID_FIELD UNSUPPORTED_COMBINATION BAD_IMAGE",
        NotFound: "DEVICE_NOT_FOUND MEMORY_POOL_NOT_FOUND MODEL_NOT_FOUND LOADED_MODEL_NOT_FOUND BLOB_NOT_FOUND"
        " RESERVATION_NOT_FOUND JOB_NOT_FOUND SESSION_NOT_FOUND WORKFLOW_NOT_FOUND POLICY_NOT_FOUND"
        " PATH_NOT_FOUND NODE_NOT_FOUND WITHHELD_IMAGE_NOT_FOUND JOB_EXPIRED",
        AlreadyExists: "ID_TAKEN REQUEST_ID_REUSED",
        FailedPrecondition: "MODEL_NOT_LOADED MODEL_INCOMPATIBLE COMPONENT_MISSING DEPENDENCY_CYCLE DEVICE_DISABLED"
        " ILLEGAL_STATE BLOB_IN_USE RESERVATION_EXPIRED METHOD_DISABLED CONTENT_BLOCKED",
        Aborted: "ETAG_MISMATCH PREEMPTED DEVICE_LOST MODEL_UNLOADED",
        ResourceExhausted: "DEVICE_OUT_OF_MEMORY HOST_OUT_OF_MEMORY STORAGE_FULL BUDGET_EXCEEDED QUEUE_FULL"
        " QUOTA_EXCEEDED RATE_LIMITED MESSAGE_TOO_LARGE",
        DeadlineExceeded: "QUEUE_TIMEOUT LOAD_TIMEOUT RUN_TIMEOUT",
        DataLoss: "MODEL_CORRUPT BLOB_CORRUPT CHECKPOINT_CORRUPT",
        Unavailable: "STARTING DRAINING DEVICE_RECOVERING WORKER_RESTARTING CLASSIFIER_UNAVAILABLE",
        Unauthenticated: "TOKEN_MISSING TOKEN_INVALID",
        PermissionDenied: "PATH_OUTSIDE_ROOTS SCOPE_MISSING",
        NotSupported: "NOT_SUPPORTED_ON_DEVICE FEATURE_NOT_INSTALLED NOT_IMPLEMENTED",
        InternalError: "DRIVER_ERROR STORAGE_FAILED NUMERIC_FAILURE INVARIANT_BROKEN",
    }.items()
    for reason in map(ErrorReason, reasons.split())
}
"""Which family each reason belongs to."""
