"""Which ways to compute a device has."""

from domains.device.device import Device
from domains.model.execution import Execution
from domains.model.ways import ATTENTION_KERNELS


def lacked(execution: Execution, device: Device) -> tuple[str, ...]:
    """What an execution names and the device does not have, for people: `precision bfloat16`."""
    kernel = execution.ways.attention_kernel
    return (
        *(f"precision {one}" for one in execution.named if one not in device.precisions),
        *(f"quantization {one}" for one in execution.quantizations if one not in device.quantizations),
        *([f"attention_kernel {kernel}"] if kernel and kernel not in kernels_of(device) else []),
    )


def told_fit(execution: Execution, device: Device) -> str:
    """What the device lacks and has of the options that an execution names, for people."""
    options = {
        "precision": device.precisions if execution.named else (),
        "quantization": device.quantizations if execution.quantizations else (),
        "attention_kernel": kernels_of(device) if execution.ways.attention_kernel else (),
    }
    has = "; ".join(f"{name} {', '.join(values)}" for name, values in options.items() if values)
    return f"{device.id} lacks {' and '.join(lacked(execution, device))}, and has {has or 'none'}"


def kernels_of(device: Device) -> tuple[str, ...]:
    """The attention kernels of a device."""
    return tuple(name for name, feature in ATTENTION_KERNELS.items() if not feature or feature in device.features)
