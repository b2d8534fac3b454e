"""Finds out what a device is and can do, by asking it."""

import os
import platform
from pathlib import Path

import diffusers
import psutil
import torch
import transformers

from domains.device.device import Backend, Device, DeviceKind, PrecisionSupport
from domains.errors import ErrorReason, InternalError

_PRECISIONS = (torch.float32, torch.bfloat16, torch.float16)


def probe(name: str) -> Device:
    """The device by its torch name (`cpu`, `cuda:0`). Raises DRIVER_ERROR if torch cannot use it."""
    device = torch.device(name)
    try:
        tried = tuple(_try(device, dtype) for dtype in _PRECISIONS)
    except RuntimeError as error:
        raise InternalError(
            f"torch {torch.__version__} cannot use {name}: {str(error).splitlines()[0]}",
            ErrorReason.DRIVER_ERROR,
            device=name,
        ) from error
    return _cuda(device, tried) if device.type == "cuda" else _cpu(tried)


def libraries() -> tuple[str, ...]:
    """Versions of what computes in this process."""
    return (
        f"torch {torch.__version__}",
        f"diffusers {diffusers.__version__}",
        f"transformers {transformers.__version__}",
    )


def _word(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def _try(device: torch.device, dtype: torch.dtype) -> PrecisionSupport:
    """Whether a small matrix product in this precision comes out right."""
    generator = torch.Generator().manual_seed(1)
    left, right = (torch.rand(16, 16, generator=generator) for _ in range(2))
    try:
        product = (left.to(device, dtype) @ right.to(device, dtype)).float().cpu()
    except RuntimeError as error:
        if dtype is torch.float32:
            raise
        return PrecisionSupport(precision=_word(dtype), supported=False, detail=str(error).splitlines()[0])
    # bfloat16 keeps 8 bits of mantissa; the sums here are about 4.
    right_result = torch.allclose(product, left @ right, atol=0.15)
    detail = "" if right_result else "a small matrix product came out wrong"
    return PrecisionSupport(precision=_word(dtype), supported=right_result, detail=detail)


def _cpu(tried: tuple[PrecisionSupport, ...]) -> Device:
    return Device(
        id="cpu",
        aliases=("cpu:0",),
        display_name=_cpu_name(),
        kind=DeviceKind.CPU,
        backend=Backend.CPU,
        backend_index=0,
        vendor=_cpu_field("vendor_id"),
        total_memory_bytes=psutil.virtual_memory().total,
        precision_support=tried,
        compute_units=psutil.cpu_count(logical=False) or os.cpu_count(),
        worker_pid=os.getpid(),
        libraries=libraries(),
    )


def _cpu_name() -> str:
    return _cpu_field("model name") or platform.processor() or platform.machine()


def _cpu_field(name: str) -> str:
    """A field of /proc/cpuinfo; empty where there is none."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith(name)), "")


def _cuda(device: torch.device, tried: tuple[PrecisionSupport, ...]) -> Device:
    facts = torch.cuda.get_device_properties(device)
    uuid = str(getattr(facts, "uuid", ""))
    index = device.index or 0
    pci = (getattr(facts, f"pci_{part}_id", None) for part in ("domain", "bus", "device"))
    domain, bus, slot = pci
    return Device(
        id=f"gpu-{uuid[:8]}" if uuid else f"gpu-{index}",
        aliases=(f"cuda:{index}", str(index)),
        display_name=facts.name,
        kind=DeviceKind.INTEGRATED_GPU if getattr(facts, "is_integrated", False) else DeviceKind.DISCRETE_GPU,
        backend=Backend.CUDA,
        backend_index=index,
        vendor="NVIDIA",
        total_memory_bytes=facts.total_memory,
        precision_support=tried,
        compute_units=facts.multi_processor_count,
        compute_capability=f"{facts.major}.{facts.minor}",
        driver_version=_driver_version(),
        runtime_version=torch.version.cuda or "",
        pci_bus_id="" if bus is None else f"{domain or 0:04x}:{bus:02x}:{slot or 0:02x}.0",
        uuid=uuid,
        worker_pid=os.getpid(),
        libraries=libraries(),
    )


def _driver_version() -> str:
    """From NVML; empty where it cannot be asked."""
    import pynvml

    try:
        pynvml.nvmlInit()
        version = pynvml.nvmlSystemGetDriverVersion()
    except pynvml.NVMLError:
        return ""
    return version if isinstance(version, str) else version.decode()
