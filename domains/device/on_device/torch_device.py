"""Torch's name of a device, if this Python environment can drive it."""

import importlib
from typing import Any

import torch

from domains.device.device_names import ordinal
from domains.errors import DeviceOpsError, ErrorReason, InternalError, NotFound, NotSupported
from domains.system_errors import wrapped_system_error


def torch_name(name: str, *, pinned: bool = False) -> str:
    """Torch's name of a device. `pinned`: the process sees no other GPU, so that this one is the first.

    Raises FEATURE_NOT_INSTALLED if this environment lacks the runtime, DEVICE_NOT_FOUND if there is no such adapter.
    """
    backend = name.partition(":")[0]
    if backend == "directml":
        return _directml_name(name)
    # PyTorch drives ROCm under the name of CUDA.
    if backend == "cuda" and torch.version.cuda is None and torch.version.hip is None:
        raise _built_without("CUDA", name)
    if backend == "rocm":
        if torch.version.hip is None:
            raise _built_without("ROCm", name)
        return f"cuda:{ordinal(name)}"
    return "cuda:0" if pinned else name


def _built_without(runtime: str, name: str) -> NotSupported:
    message = (
        f"torch {torch.__version__} is built without {runtime}, so nothing computes on {name}; install a build with it,"
        " from https://pytorch.org/get-started"
    )
    return NotSupported(message, ErrorReason.FEATURE_NOT_INSTALLED, device=name)


def cannot_use(name: str, error: Exception) -> DeviceOpsError:
    """The error for a device that torch lists but cannot use."""
    if known := wrapped_system_error(error):
        return known
    first = (str(error).splitlines() or [type(error).__name__])[0]
    return InternalError(f"torch {torch.__version__} cannot use {name}: {first}", ErrorReason.DRIVER_ERROR, device=name)


def directml() -> Any:
    """Torch's DirectML extension. Raises FEATURE_NOT_INSTALLED."""
    try:
        return importlib.import_module("torch_directml")
    except (ImportError, OSError) as error:
        message = (
            f"torch_directml cannot be imported ({error}); install deviceops[directml] into an environment of its own"
            " (Python 3.11 or 3.12), and name its interpreter with the setting `directml_python`"
        )
        raise NotSupported(message, ErrorReason.FEATURE_NOT_INSTALLED, extra="directml") from error


def directml_adapters() -> tuple[str, ...]:
    """Names of DirectML's adapters in its order; empty for an adapter that does not report its name."""
    extension = directml()
    return tuple(_adapter_name(extension, index) for index in range(extension.device_count()))


def _adapter_name(extension: Any, index: int) -> str:
    # The extension creates a Direct3D device to read the name: a failing driver must not affect other adapters.
    try:
        return str(extension.device_name(index)).strip("\0 ")
    except RuntimeError:
        return ""


def _directml_name(name: str) -> str:
    index = ordinal(name)
    if index >= directml().device_count():
        adapters = enumerate(directml_adapters())
        listed = ", ".join(f"directml:{number} {adapter}".rstrip() for number, adapter in adapters) or "none"
        message = f"there is no adapter {name}; DirectML lists {listed}"
        raise NotFound(message, ErrorReason.DEVICE_NOT_FOUND, device_id=name, known=listed)
    return f"privateuseone:{index}"
