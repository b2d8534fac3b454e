"""Lists devices without a worker or torch: the host's processor, and GPUs as NVML lists them."""

import os
from collections.abc import Mapping, Sequence

import psutil

from domains.device.adapter import Adapter
from domains.device.cgroup import host_memory
from domains.device.device import Backend, Device, DeviceKind
from domains.device.host_cpu import cpu_architecture, cpu_max_clock_mhz, cpu_name, cpu_vendor
from domains.device.nvml import NvmlTelemetry
from domains.device.threaded_inventory import ThreadedInventory
from domains.device.visible import visible


class CudaInventory(ThreadedInventory):
    """GPUs that NVML lists and CUDA_VISIBLE_DEVICES does not hide. Names count all GPUs by PCI bus, as NVML does."""

    backend = Backend.CUDA

    def __init__(
        self, driver: NvmlTelemetry, names: Sequence[str] | None = None, visible_devices: str | None = None
    ) -> None:
        """`names`: only these, `cuda:0`; None: all. `visible_devices`: CUDA_VISIBLE_DEVICES; None: not set."""
        super().__init__("NVML", names)
        self._driver = driver
        self._visible_devices = visible_devices

    def _list(self) -> Mapping[str, Device]:
        ours = visible(self._driver.inventory(), self._visible_devices)
        return {f"cuda:{adapter.index}": _unprobed(adapter) for adapter in ours}


def _unprobed(adapter: Adapter) -> Device:
    """A GPU that no worker has probed yet."""
    return Device(
        id=adapter.device_id,
        aliases=(f"cuda:{adapter.index}", str(adapter.index)),
        display_name=adapter.name,
        kind=DeviceKind.DISCRETE_GPU,
        backend=Backend.CUDA,
        backend_index=adapter.index,
        vendor="NVIDIA",
        architecture=adapter.architecture,
        total_memory_bytes=adapter.total_memory_bytes,
        precision_support=(),
        driver_name="nvidia",
        driver_version=adapter.driver_version,
        firmware_version=adapter.firmware_version,
        pci_bus_id=adapter.pci_bus_id,
        pci_vendor_id=adapter.pci_vendor_id,
        pci_device_id=adapter.pci_device_id,
        uuid=adapter.uuid,
    )


def host_processor() -> Device:
    """The CPU as the operating system reports it; also listed without a worker."""
    return Device(
        id="cpu",
        aliases=("cpu:0",),
        display_name=cpu_name(),
        kind=DeviceKind.CPU,
        backend=Backend.CPU,
        backend_index=0,
        vendor=cpu_vendor(),
        architecture=cpu_architecture(),
        total_memory_bytes=host_memory().total_bytes,
        precision_support=(),
        compute_units=psutil.cpu_count(logical=False) or os.cpu_count(),
        max_clock_mhz=cpu_max_clock_mhz(),
    )
