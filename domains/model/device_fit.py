"""Which ways to compute a device has."""

from domains.device.device import Device
from domains.model.execution import Execution
from domains.model.ways import ATTENTION_KERNELS

NO_COMPILER = (
    "no compiler was found that works: a CPU needs a C++ compiler, CUDA a C compiler and triton, and both need Python's "
    "header files; install them and restart, or leave compile out"
)
"""Why a device compiles nothing, and what helps."""


def lacked(execution: Execution, device: Device) -> tuple[str, ...]:
    """What an execution names and the device does not have, for people: `precision bfloat16`."""
    kernel = execution.ways.attention_kernel
    return (
        *(f"precision {one}" for one in execution.named if one not in device.precisions),
        *(f"quantization {one}" for one in execution.quantizations if one not in device.quantizations),
        *([f"attention_kernel {kernel}"] if kernel and kernel not in kernels_of(device) else []),
        *(["compile"] if execution.ways.compile and not compiles(device) else []),
    )


def told_fit(execution: Execution, device: Device) -> str:
    """What the device lacks and has of the options that an execution names, for people."""
    options = {
        "precision": device.precisions if execution.named else (),
        "quantization": device.quantizations if execution.quantizations else (),
        "attention_kernel": kernels_of(device) if execution.ways.attention_kernel else (),
    }
    has = "; ".join(f"{name} {', '.join(values)}" for name, values in options.items() if values)
    lacks = lacked(execution, device)
    remedy = f"; {NO_COMPILER}" if "compile" in lacks else ""
    return f"{device.id} lacks {' and '.join(lacks)}, and has {has or 'none'}{remedy}"


def compiles(device: Device) -> bool:
    """Whether a denoiser can be compiled for a device."""
    return "compile" in device.features


def kernels_of(device: Device) -> tuple[str, ...]:
    """The attention kernels of a device."""
    return tuple(name for name, feature in ATTENTION_KERNELS.items() if not feature or feature in device.features)
