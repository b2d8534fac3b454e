"""Which devices there are, as the configuration wants them and as a backend lists them, without a worker or torch."""

import asyncio
from collections.abc import Mapping, Sequence

from domains.device.device import Backend, Device, DeviceKind
from domains.device.host_cpu import cpu_architecture, cpu_name, cpu_vendor
from domains.device.nvml import NvmlTelemetry

AUTO = "auto"


class CudaInventory:
    """What NVML lists. Workers count GPUs by PCI bus too (CUDA_DEVICE_ORDER)."""

    backend = Backend.CUDA

    def __init__(self, driver: NvmlTelemetry, names: Sequence[str] | None = None) -> None:
        """`names`: only these, `cuda:0`; None: all."""
        self._driver = driver
        self._names = None if names is None else frozenset(names)

    def look_now(self) -> Mapping[str, str]:
        """Device ids by torch name. Blocks for as long as the driver does."""
        found = {f"cuda:{adapter.index}": adapter.device_id for adapter in self._driver.inventory()}
        return {name: one for name, one in found.items() if self._names is None or name in self._names}

    async def look(self) -> Mapping[str, str]:
        """The same, off the event loop."""
        return await asyncio.to_thread(self.look_now)


def host_processor() -> Device:
    """The CPU as the operating system tells it: listed also where no worker computes on it."""
    return Device(
        id="cpu",
        aliases=("cpu:0",),
        display_name=cpu_name(),
        kind=DeviceKind.CPU,
        backend=Backend.CPU,
        backend_index=0,
        vendor=cpu_vendor(),
        architecture=cpu_architecture(),
        total_memory_bytes=None,
        precision_support=(),
    )
