"""Properties of each error reason: the domain it comes from, its severity, and whether a retry helps."""

from collections.abc import Mapping
from enum import StrEnum

import msgspec

from domains.errors import ErrorReason


class Domain(StrEnum):
    """A domain of the server, one for each service."""

    DEVICE = "device"
    MEMORY = "memory"
    MODEL = "model"
    INFERENCE = "inference"
    POSTPROCESSING = "postprocessing"
    PROCESSING = "processing"


class Severity(StrEnum):
    """Severity of an event."""

    INFO = "info"
    WARNING = "warning"
    ERROR = "error"
    CRITICAL = "critical"
    """Other parts depend on what failed."""


class Nature(msgspec.Struct, frozen=True, kw_only=True):
    """Properties of the failures with one reason."""

    domain: Domain | None
    """None: the domain of the work that failed."""
    severity: Severity = Severity.ERROR
    retryable: bool = False
    """Whether the same request may succeed later, without a change by the caller."""


_DOMAINS: Mapping[Domain | None, str] = {
    Domain.DEVICE: "DEVICE_NOT_FOUND DEVICE_DISABLED DEVICE_LOST DEVICE_RECOVERING WORKER_RESTARTING"
    " NOT_SUPPORTED_ON_DEVICE DRIVER_ERROR",
    Domain.MEMORY: "MEMORY_POOL_NOT_FOUND BLOB_NOT_FOUND RESERVATION_NOT_FOUND BLOB_IN_USE RESERVATION_EXPIRED"
    " DEVICE_OUT_OF_MEMORY HOST_OUT_OF_MEMORY BUDGET_EXCEEDED BLOB_CORRUPT",
    Domain.MODEL: "MODEL_NOT_FOUND LOADED_MODEL_NOT_FOUND MODEL_NOT_LOADED MODEL_INCOMPATIBLE COMPONENT_MISSING"
    " MODEL_UNLOADED LOAD_TIMEOUT MODEL_CORRUPT",
    Domain.INFERENCE: "NUMERIC_FAILURE",
    Domain.POSTPROCESSING: "POLICY_NOT_FOUND WITHHELD_IMAGE_NOT_FOUND CONTENT_BLOCKED CLASSIFIER_UNAVAILABLE",
    Domain.PROCESSING: "JOB_NOT_FOUND SESSION_NOT_FOUND WORKFLOW_NOT_FOUND NODE_NOT_FOUND JOB_EXPIRED REQUEST_ID_REUSED"
    " DEPENDENCY_CYCLE METHOD_DISABLED PREEMPTED STORAGE_FULL QUEUE_FULL RATE_LIMITED MESSAGE_TOO_LARGE QUEUE_TIMEOUT"
    " RUN_TIMEOUT CHECKPOINT_CORRUPT STARTING DRAINING TOKEN_MISSING TOKEN_INVALID SCOPE_MISSING STORAGE_FAILED",
    None: "INVALID_FIELD UNSUPPORTED_COMBINATION BAD_IMAGE PATH_NOT_FOUND ID_TAKEN ILLEGAL_STATE ETAG_MISMATCH"
    " QUOTA_EXCEEDED PATH_OUTSIDE_ROOTS FEATURE_NOT_INSTALLED NOT_IMPLEMENTED INVARIANT_BROKEN",
}
_CRITICAL = (
    "DEVICE_LOST DRIVER_ERROR STORAGE_FULL STORAGE_FAILED MODEL_CORRUPT BLOB_CORRUPT CHECKPOINT_CORRUPT"
    " CLASSIFIER_UNAVAILABLE INVARIANT_BROKEN"
)
_RETRYABLE = (
    "STARTING DRAINING DEVICE_RECOVERING WORKER_RESTARTING CLASSIFIER_UNAVAILABLE QUEUE_FULL RATE_LIMITED QUOTA_EXCEEDED"
    # Other jobs end or free memory.
    " DEVICE_OUT_OF_MEMORY HOST_OUT_OF_MEMORY STORAGE_FULL BUDGET_EXCEEDED BLOB_IN_USE"
    # The queue was long, or the disk or device was busy with other work.
    " QUEUE_TIMEOUT LOAD_TIMEOUT RUN_TIMEOUT"
    # The job runs elsewhere, or on the same device after its worker was restarted.
    " PREEMPTED DEVICE_LOST MODEL_UNLOADED DRIVER_ERROR"
)
"""ETAG_MISMATCH is not listed: a retry meets the same mismatch."""

NATURE_OF: Mapping[ErrorReason, Nature] = {
    reason: Nature(
        domain=domain,
        severity=Severity.CRITICAL if name in _CRITICAL.split() else Severity.ERROR,
        retryable=name in _RETRYABLE.split(),
    )
    for domain, names in _DOMAINS.items()
    for name, reason in ((name, ErrorReason(name)) for name in names.split())
}
"""The properties of every reason."""
