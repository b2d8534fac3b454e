"""Torch's errors in our words. The only place that reads their texts."""

from typing import Any

import structlog
import torch

from domains.errors import DeviceOpsError, ErrorReason, InternalError, ResourceExhausted

_log = structlog.get_logger()

_HOST_TEXTS = ("DefaultCPUAllocator", "can't allocate memory", "Cannot allocate memory")
# DirectML has no exception type of its own for this; these are its texts.
_DEVICE_TEXTS = ("CUDA out of memory", "Could not allocate tensor", "not enough GPU video memory")
_LACKING_TEXTS = ("not implemented for", "not supported", "does not support", "Could not run")
_DRIVER_TEXTS = ("CUDA error", "cuDNN error", "CUBLAS_STATUS", "CUDNN_STATUS", "device-side assert")


def translate(error: Exception, device: torch.device, doing: str) -> DeviceOpsError:
    """The error to tell a caller. `doing` says what was going on: `decoding picture 2`.

    One of ours passes unchanged. An unexpected one is logged with its traceback and told without its text.
    """
    if isinstance(error, DeviceOpsError):
        return error
    text = str(error)
    if isinstance(error, torch.cuda.OutOfMemoryError) or _says(error, text, _DEVICE_TEXTS):
        return _device_full(device, doing)
    if isinstance(error, MemoryError) or _says(error, text, _HOST_TEXTS):
        message = f"the host ran out of memory while {doing}; ask for a smaller or for fewer pictures"
        return ResourceExhausted(message, ErrorReason.HOST_OUT_OF_MEMORY, device=device, doing=doing)
    _log.error("unexpected error", doing=doing, device=str(device), exc_info=error)
    if _says(error, text, _DRIVER_TEXTS):
        message = f"the driver of {device} failed while {doing}; the worker must be restarted"
        return InternalError(message, ErrorReason.DRIVER_ERROR, device=device, doing=doing)
    message = f"an error of ours while {doing}; the worker's log has the details"
    return InternalError(message, ErrorReason.INVARIANT_BROKEN, device=device, doing=doing)


def lacking(error: Exception) -> bool:
    """Whether torch says that the device, or this build, has no such operation. False: it tried, and failed."""
    if _says(error, str(error), (*_DEVICE_TEXTS, *_HOST_TEXTS, *_DRIVER_TEXTS)):
        return False
    return isinstance(error, NotImplementedError) or _says(error, str(error), _LACKING_TEXTS)


def _says(error: Exception, text: str, texts: tuple[str, ...]) -> bool:
    return isinstance(error, RuntimeError) and any(part in text for part in texts)


def _device_full(device: torch.device, doing: str) -> ResourceExhausted:
    free, total = torch.cuda.mem_get_info(device) if device.type == "cuda" else (None, None)
    room = "" if free is None else f" ({free} of {total} bytes free)"
    message = (
        f"{device} ran out of memory while {doing}{room}; ask for a smaller or for fewer pictures, or unload a model"
    )
    facts: dict[str, Any] = {"device": device, "doing": doing}
    if free is not None:
        facts |= {"free_bytes": free, "total_bytes": total}
    return ResourceExhausted(message, ErrorReason.DEVICE_OUT_OF_MEMORY, **facts)
