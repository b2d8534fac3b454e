"""Finds out what a device is and can do."""

import os
import time
from concurrent.futures import ThreadPoolExecutor

import diffusers
import msgspec
import torch
import transformers

from domains.device.adapter import Adapter, bare_uuid
from domains.device.device import Backend, Device, DeviceKind, PrecisionSupport
from domains.device.directml.adapter import DirectMLAdapter, adapter_at, directml_device
from domains.device.directml.dxcore import open_dxcore
from domains.device.inventory import host_processor
from domains.device.nvml import NvmlTelemetry
from domains.device.on_device import cuda_driver
from domains.device.on_device.features import allocation_alignment, can_compile, features
from domains.device.on_device.quantizations import tried_quantizations
from domains.device.on_device.torch_device import cannot_use, directml_adapters
from domains.errors import InternalError

_PRECISIONS = (torch.float32, torch.bfloat16, torch.float16)


def probe(name: str, number: int | None = None) -> Device:
    """The device with this torch name (`cpu`, `cuda:0`). Raises DRIVER_ERROR if torch cannot use it.

    `number`: the server's number of the device, if this process counts differently.
    """
    device = torch.device(name)
    with ThreadPoolExecutor(1) as beside:
        # The compiler runs in another process, so it can work while the device loads its kernels.
        compiles = beside.submit(can_compile, device)
        told = msgspec.structs.replace(_tried(device, number), quantizations=tried_quantizations(device))
    return msgspec.structs.replace(told, features=(*told.features, "compile")) if compiles.result() else told


def _tried(device: torch.device, number: int | None) -> Device:
    try:
        tried = tuple(_try(device, dtype) for dtype in _PRECISIONS)
    except RuntimeError as error:
        raise cannot_use(str(device), error) from error
    match device.type:
        case "cuda" if torch.version.hip is not None:
            return rocm_device(device, tried, (device.index or 0) if number is None else number)
        case "cuda":
            return _cuda(device, tried, (device.index or 0) if number is None else number)
        case "privateuseone":
            return _directml(device, tried)
        case _:
            return _cpu(tried)


def rocm_device(device: torch.device, tried: tuple[PrecisionSupport, ...], index: int) -> Device:
    """An AMD GPU, which PyTorch calls `cuda`. All properties come from PyTorch: NVIDIA's libraries do not know the GPU.

    Tested with a stand-in for PyTorch; not run on such hardware yet.
    """
    facts = torch.cuda.get_device_properties(device)
    uuid = _rocm_uuid(str(getattr(facts, "uuid", "")))
    # `gfx90a:sramecc+:xnack-`: the part behind the colon lists features and is not part of the name.
    target = str(getattr(facts, "gcnArchName", "")).partition(":")[0]
    return Device(
        id=f"gpu-{uuid[:8]}" if uuid else f"gpu-{index}",
        aliases=(f"rocm:{index}", str(index)),
        display_name=facts.name,
        kind=DeviceKind.INTEGRATED_GPU if getattr(facts, "is_integrated", False) else DeviceKind.DISCRETE_GPU,
        backend=Backend.ROCM,
        backend_index=index,
        vendor="AMD",
        architecture=target,
        total_memory_bytes=facts.total_memory,
        precision_support=tried,
        features=features(device),
        compute_units=facts.multi_processor_count,
        allocation_alignment_bytes=allocation_alignment(device),
        compute_capability=target,
        driver_name="amdgpu",
        runtime_version=f"ROCm {'.'.join(str(torch.version.hip).split('.')[:2])}",
        pci_bus_id=_place(facts),
        uuid=f"GPU-{uuid}" if uuid else "",
        worker_pid=os.getpid(),
        libraries=libraries(),
        probe_time_s=time.time(),
    )


def _rocm_uuid(reported: str) -> str:
    """The GPU's unique id in hex digits. HIP stores these digits as text in the 16 bytes of the UUID."""
    bare = bare_uuid(reported)
    try:
        text = bytes.fromhex(bare.replace("-", "")).decode("ascii")
        int(text, 16)
    except ValueError:
        return bare
    return text.lower()


def libraries() -> tuple[str, ...]:
    """Versions of the libraries that compute in this process."""
    return (
        f"torch {torch.__version__}",
        f"diffusers {diffusers.__version__}",
        f"transformers {transformers.__version__}",
    )


def _word(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def _try(device: torch.device, dtype: torch.dtype) -> PrecisionSupport:
    """Whether a small matrix product in this precision is correct."""
    generator = torch.Generator().manual_seed(1)
    left, right = (torch.rand(16, 16, generator=generator) for _ in range(2))
    try:
        product = (left.to(device, dtype) @ right.to(device, dtype)).float().cpu()
    except RuntimeError as error:
        if dtype is torch.float32:
            raise
        return PrecisionSupport(precision=_word(dtype), supported=False, detail=str(error).splitlines()[0])
    # bfloat16 has 8 bits of mantissa; the sums here are about 4.
    right_result = torch.allclose(product, left @ right, atol=0.15)
    detail = "" if right_result else "a small matrix product came out wrong"
    return PrecisionSupport(precision=_word(dtype), supported=right_result, detail=detail)


def _cpu(tried: tuple[PrecisionSupport, ...]) -> Device:
    device = torch.device("cpu")
    return msgspec.structs.replace(
        host_processor(),
        precision_support=tried,
        features=features(device),
        allocation_alignment_bytes=allocation_alignment(device),
        worker_pid=os.getpid(),
        libraries=libraries(),
        probe_time_s=time.time(),
    )


def _directml(device: torch.device, tried: tuple[PrecisionSupport, ...]) -> Device:
    """DirectML reports only an adapter's name; the operating system reports more."""
    index = device.index or 0
    return msgspec.structs.replace(
        directml_device(index, adapter_at(index, directml_adapters(), _listed_adapters())),
        precision_support=tried,
        features=features(device),
        worker_pid=os.getpid(),
        libraries=libraries(),
        probe_time_s=time.time(),
    )


def _listed_adapters() -> tuple[DirectMLAdapter, ...]:
    dxcore = open_dxcore()
    try:
        return dxcore.adapters() if dxcore else ()
    except InternalError:
        return ()


def _cuda(device: torch.device, tried: tuple[PrecisionSupport, ...], index: int) -> Device:
    facts = torch.cuda.get_device_properties(device)
    uuid, place = _identity(facts, device.index or 0)
    adapter = _adapter(uuid, place)
    return Device(
        id=f"gpu-{uuid[:8]}" if uuid else f"gpu-{index}",
        aliases=(f"cuda:{index}", str(index)),
        display_name=facts.name,
        kind=DeviceKind.INTEGRATED_GPU if getattr(facts, "is_integrated", False) else DeviceKind.DISCRETE_GPU,
        backend=Backend.CUDA,
        backend_index=index,
        vendor="NVIDIA",
        architecture=adapter.architecture,
        total_memory_bytes=facts.total_memory,
        precision_support=tried,
        features=features(device),
        compute_units=facts.multi_processor_count,
        max_clock_mhz=adapter.max_clock_mhz,
        allocation_alignment_bytes=allocation_alignment(device),
        compute_capability=f"{facts.major}.{facts.minor}",
        driver_name="nvidia",
        driver_version=adapter.driver_version,
        runtime_version=f"CUDA {torch.version.cuda}" if torch.version.cuda else "",
        firmware_version=adapter.firmware_version,
        pci_bus_id=place or adapter.pci_bus_id,
        pci_vendor_id=adapter.pci_vendor_id,
        pci_device_id=adapter.pci_device_id,
        uuid=_vendor_uuid(adapter, uuid),
        worker_pid=os.getpid(),
        libraries=libraries(),
        probe_time_s=time.time(),
    )


def _identity(facts: object, index: int) -> tuple[str, str]:
    """UUID without prefix, and PCI bus id, from torch; torch 2.4 has neither, so from the driver."""
    uuid = bare_uuid(str(getattr(facts, "uuid", "")))
    place = _place(facts)
    if uuid and place:
        return uuid, place
    driver_uuid, driver_place = cuda_driver.identity(index)
    return uuid or driver_uuid, place or driver_place


def _place(facts: object) -> str:
    """PCI bus id. Empty: torch does not report it."""
    domain, bus, slot = (getattr(facts, f"pci_{part}_id", None) for part in ("domain", "bus", "device"))
    return "" if bus is None else f"{domain or 0:04x}:{bus:02x}:{slot or 0:02x}.0"


def _vendor_uuid(adapter: Adapter, uuid: str) -> str:
    """The UUID in NVIDIA's form. A UUID that is not the adapter's belongs to a part of it (MIG)."""
    if not uuid or bare_uuid(adapter.uuid) == uuid:
        return adapter.uuid
    return f"MIG-{uuid}" if adapter.uuid else f"GPU-{uuid}"


def _adapter(uuid: str, place: str) -> Adapter:
    """NVML's entry for this GPU; an empty one if NVML fails. A part of a GPU (MIG) is found by its PCI bus id."""
    telemetry = NvmlTelemetry()
    try:
        listed = telemetry.inventory()
    except InternalError:
        listed = ()
    finally:
        telemetry.close()
    same = [one for one in listed if uuid and bare_uuid(one.uuid) == uuid]
    near = [one for one in listed if place and one.pci_bus_id == place]
    return next(iter(same or near), Adapter(uuid="", name="", index=0))
