"""Which GPUs NVML lists, and what it knows of each."""

from typing import Any

from domains.device.adapter import Adapter, pci_address
from domains.device.nvml_driver import Nvml, text
from domains.errors import ErrorReason, InternalError

_ARCHITECTURES = (
    "kepler",
    "maxwell",
    "pascal",
    "volta",
    "turing",
    "ampere",
    "ada",
    "hopper",
    "blackwell",
    "rubin",
)


def adapters(nvml: Nvml) -> tuple[Adapter, ...]:
    """All of them; none without a driver. One that vanishes while it is asked is left out."""
    if not nvml.open():
        return ()
    try:
        count = nvml.names.nvmlDeviceGetCount()
    except nvml.error as error:
        raise InternalError(f"NVIDIA's driver does not list its GPUs: {error}", ErrorReason.DRIVER_ERROR) from error
    found = (_adapter(nvml, index) for index in range(count))
    return tuple(adapter for adapter in found if adapter)


def _adapter(nvml: Nvml, index: int) -> Adapter | None:
    try:
        handle = nvml.names.nvmlDeviceGetHandleByIndex(index)
        uuid = text(nvml.names.nvmlDeviceGetUUID(handle))
        return _described(nvml, index, handle, uuid)
    except nvml.error:
        return None


def _described(nvml: Nvml, index: int, handle: Any, uuid: str) -> Adapter:
    def ask(name: str, *arguments: Any) -> Any:
        return nvml.ask(uuid, f"DeviceGet{name}", handle, *arguments)

    pci, memory = ask("PciInfo"), ask("MemoryInfo")
    return Adapter(
        uuid=uuid,
        name=text(ask("Name")),
        index=index,
        pci_bus_id="" if pci is None else pci_address(text(pci.busId)),
        # NVML packs both ids: the device's in the upper half, the vendor's in the lower.
        pci_vendor_id=None if pci is None else int(pci.pciDeviceId) & 0xFFFF,
        pci_device_id=None if pci is None else int(pci.pciDeviceId) >> 16,
        architecture=_architecture(nvml, ask("Architecture")),
        driver_version=text(nvml.ask("", "SystemGetDriverVersion")),
        cuda_version=_version(nvml.ask("", "SystemGetCudaDriverVersion")),
        firmware_version=text(ask("VbiosVersion")),
        total_memory_bytes=None if memory is None else int(memory.total),
        max_clock_mhz=ask("MaxClockInfo", nvml.constant("CLOCK_SM")),
        max_memory_clock_mhz=ask("MaxClockInfo", nvml.constant("CLOCK_MEM")),
    )


def _architecture(nvml: Nvml, number: int | None) -> str:
    named = {nvml.constant(f"DEVICE_ARCH_{name.upper()}"): name for name in _ARCHITECTURES}
    return "" if number is None else named.get(number, "")


def _version(number: int | None) -> str:
    """CUDA's 13010 is 13.1."""
    return "" if not number else f"{number // 1000}.{number % 1000 // 10}"
