"""Lists the GPUs that NVML knows, with their properties."""

from collections.abc import Mapping
from typing import Any

import msgspec
import structlog

from domains.device.adapter import Adapter, pci_address
from domains.device.nvml_driver import Nvml, text
from domains.errors import ErrorReason, InternalError

_log = structlog.get_logger()

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


class Listed(msgspec.Struct, frozen=True, kw_only=True):
    """One listing of the driver."""

    adapters: tuple[Adapter, ...] = ()
    gone: bool = False
    """Whether a GPU with an index is gone: NVML must be opened again to see it come back."""


def adapters(nvml: Nvml, known: Mapping[int, Adapter]) -> Listed:
    """All GPUs; empty without a driver. A GPU that vanishes during the listing is left out.

    `known`: the previous listing, by index. A GPU that does not answer now keeps its previous entry: only the driver's error
    that it is gone removes it.
    """
    if not nvml.open():
        return Listed()
    try:
        count = nvml.names.nvmlDeviceGetCount()
    except nvml.error as error:
        raise InternalError(f"NVIDIA's driver does not list its GPUs: {error}", ErrorReason.DRIVER_ERROR) from error
    found: list[Adapter | None] = []
    gone = False
    for index in range(count):
        try:
            found.append(_adapter(nvml, index))
        except nvml.error as error:
            if nvml.is_gone(error):
                gone = True
            else:
                _log.warning("a GPU does not say what it is", index=index, error=str(error))
                found.append(known.get(index))
    return Listed(adapters=tuple(adapter for adapter in found if adapter), gone=gone)


def _adapter(nvml: Nvml, index: int) -> Adapter:
    handle = nvml.names.nvmlDeviceGetHandleByIndex(index)
    return _described(nvml, index, handle, text(nvml.names.nvmlDeviceGetUUID(handle)))


def _described(nvml: Nvml, index: int, handle: Any, uuid: str) -> Adapter:
    def ask(name: str, *arguments: Any) -> Any:
        return nvml.ask(uuid, f"DeviceGet{name}", handle, *arguments)

    pci, memory = ask("PciInfo"), ask("MemoryInfo")
    return Adapter(
        uuid=uuid,
        name=text(ask("Name")),
        index=index,
        pci_bus_id="" if pci is None else pci_address(text(pci.busId)),
        # NVML packs both ids: the device's in the upper half, the vendor's in the lower half.
        pci_vendor_id=None if pci is None else int(pci.pciDeviceId) & 0xFFFF,
        pci_device_id=None if pci is None else int(pci.pciDeviceId) >> 16,
        architecture=_architecture(nvml, ask("Architecture")),
        driver_version=text(nvml.ask("", "SystemGetDriverVersion")),
        firmware_version=text(ask("VbiosVersion")),
        total_memory_bytes=None if memory is None else int(memory.total),
        max_clock_mhz=ask("MaxClockInfo", nvml.constant("CLOCK_SM")),
    )


def _architecture(nvml: Nvml, number: int | None) -> str:
    named = {nvml.constant(f"DEVICE_ARCH_{name.upper()}"): name for name in _ARCHITECTURES}
    return "" if number is None else named.get(number, "")
