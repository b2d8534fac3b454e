"""Translates torch's errors. Only this module reads their texts."""

import re
from typing import Any

import structlog
import torch

from domains.amounts import bytes_told
from domains.errors import DeviceOpsError, ErrorReason, InternalError, ResourceExhausted
from domains.system_errors import system_error

_log = structlog.get_logger()

_HOST_TEXTS = ("DefaultCPUAllocator", "can't allocate memory", "Cannot allocate memory")
_DEVICE_TEXTS = (
    "CUDA out of memory",
    # CUDA's own error 2, which corrupts nothing: of pinned memory, streams and the workspaces of libraries.
    *("CUDA error: out of memory", "CUBLAS_STATUS_ALLOC_FAILED", "CUDNN_STATUS_ALLOC_FAILED"),
    # DirectML has no exception type for this; these are its texts.
    *("Could not allocate tensor", "not enough GPU video memory"),
)
_TRIED = re.compile(r"Tried to allocate ([\d.]+) (bytes|KiB|MiB|GiB)")
_WANTED = re.compile(r"Could not allocate tensor with (\d+) bytes")
_UNITS = {"bytes": 1, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30}
_LACKING_TEXTS = ("not implemented for", "not supported", "does not support", "Could not run")
_DRIVER_TEXTS = (
    *("CUDA error", "cuDNN error", "CUBLAS_STATUS", "CUDNN_STATUS", "device-side assert"),
    # oneDNN, the CPU's library. Where it once gets no memory for a kernel's code, its assembler keeps the error, and no
    # other kernel can be made.
    *("could not create a primitive", "could not execute a primitive"),
)
_NO_WAY = "could not create a primitive descriptor"
"""oneDNN lacks an operation. That corrupts nothing."""


def translate(error: Exception, device: torch.device, doing: str) -> DeviceOpsError:
    """The error for the caller. `doing` says what failed: `decoding picture 2`.

    A DeviceOpsError passes unchanged. An unexpected error is logged with its traceback, and its text is not passed on.
    """
    if isinstance(error, DeviceOpsError):
        return error
    text = str(error)
    if isinstance(error, torch.cuda.OutOfMemoryError) or _says(error, text, _DEVICE_TEXTS):
        return _device_full(device, doing, needed_bytes(text))
    if isinstance(error, MemoryError) or _says(error, text, _HOST_TEXTS):
        message = f"the host ran out of memory while {doing}; ask for a smaller or for fewer pictures"
        return ResourceExhausted(message, ErrorReason.HOST_OUT_OF_MEMORY, device=device, doing=doing)
    if (known := system_error(error)) is not None:
        _log.warning("the system refused something", doing=doing, device=str(device), problem=text)
        return known
    _log.error("unexpected error", doing=doing, device=str(device), exc_info=error)
    if _says(error, text, _DRIVER_TEXTS) and _NO_WAY not in text:
        message = f"the driver of {device} failed while {doing}; the worker must be restarted"
        return InternalError(message, ErrorReason.DRIVER_ERROR, device=device, doing=doing)
    message = f"an error of ours while {doing}; the worker's log has the details"
    return InternalError(message, ErrorReason.INVARIANT_BROKEN, device=device, doing=doing)


def lacking(error: Exception) -> bool:
    """Whether torch reports that the device or this build lacks the operation. False: the operation failed."""
    if _says(error, str(error), (*_DEVICE_TEXTS, *_HOST_TEXTS, *_DRIVER_TEXTS)):
        return False
    return isinstance(error, NotImplementedError) or _says(error, str(error), _LACKING_TEXTS)


def _says(error: Exception, text: str, texts: tuple[str, ...]) -> bool:
    return isinstance(error, RuntimeError) and any(part in text for part in texts)


def needed_bytes(text: str) -> int | None:
    """Size of the failed allocation from torch's text; CUDA's text rounds it to hundredths of its unit."""
    if (reported := _TRIED.search(text)) is not None:
        return round(float(reported[1]) * _UNITS[reported[2]])
    reported = _WANTED.search(text)
    return int(reported[1]) if reported else None


def _device_full(device: torch.device, doing: str, needed: int | None) -> ResourceExhausted:
    free, total = torch.cuda.mem_get_info(device) if device.type == "cuda" else (None, None)
    wish = "" if needed is None else f", needed {bytes_told(needed)}"
    room = "" if free is None or total is None else f" ({bytes_told(free)} of {bytes_told(total)} free{wish})"
    message = (
        f"{device} ran out of memory while {doing}{room}; ask for a smaller or for fewer pictures, or unload a model"
    )
    facts: dict[str, Any] = {"device": device, "doing": doing}
    amounts = {"needed_bytes": needed, "available_bytes": free, "total_bytes": total}
    facts |= {name: amount for name, amount in amounts.items() if amount is not None}
    return ResourceExhausted(message, ErrorReason.DEVICE_OUT_OF_MEMORY, **facts)
