"""An adapter of DirectML as the operating system lists it, and the device that follows from it."""

import re
from collections.abc import Sequence

import msgspec

from domains.device.device import Backend, Device, DeviceKind

_VENDORS: dict[int | None, str] = {
    0x10DE: "NVIDIA",
    0x1002: "AMD",
    0x1022: "AMD",
    0x8086: "Intel",
    0x5143: "Qualcomm",
    0x1414: "Microsoft",
}
"""By PCI vendor id."""


class DirectMLAdapter(msgspec.Struct, frozen=True, kw_only=True):
    """One adapter. Fields that the system does not report are empty or absent."""

    name: str
    luid: int | None = None
    """High part, with its sign, in the upper 32 bits."""
    driver_version: str = ""
    """`32.0.15.6094`."""
    pci_vendor_id: int | None = None
    pci_device_id: int | None = None
    dedicated_memory_bytes: int | None = None
    """Memory of the adapter."""
    shared_memory_bytes: int | None = None
    """Host memory that the adapter may use."""
    integrated: bool | None = None
    graphics: bool = False
    """Whether the adapter can draw: an adapter that only computes need not be a GPU."""


def adapter_at(index: int, names: Sequence[str], adapters: Sequence[DirectMLAdapter]) -> DirectMLAdapter:
    """The system's entry for the adapter at this position of DirectML's names; only its name if the entry is not certain.

    A unique name identifies an adapter. Equal names are matched by position if both lists are equal.
    """
    name = names[index]
    if [one.name for one in adapters] == list(names):
        return adapters[index]
    same = [one for one in adapters if one.name == name]
    return same[0] if len(same) == 1 and list(names).count(name) == 1 else DirectMLAdapter(name=name)


def directml_device(index: int, adapter: DirectMLAdapter) -> Device:
    """The device before a worker has probed it. `index`: position in DirectML's order."""
    return Device(
        id=f"directml-{index}",
        aliases=(f"directml:{index}",),
        display_name=adapter.name,
        kind=_kind(adapter),
        backend=Backend.DIRECTML,
        backend_index=index,
        vendor=_VENDORS.get(adapter.pci_vendor_id) or _named_vendor(adapter.name),
        total_memory_bytes=_memory(adapter),
        precision_support=(),
        driver_name="directml",
        driver_version=adapter.driver_version,
        pci_vendor_id=adapter.pci_vendor_id,
        pci_device_id=adapter.pci_device_id,
        adapter_luid=adapter.luid,
    )


def _kind(adapter: DirectMLAdapter) -> DeviceKind:
    if adapter.integrated is None or not adapter.graphics:
        return DeviceKind.UNSPECIFIED
    return DeviceKind.INTEGRATED_GPU if adapter.integrated else DeviceKind.DISCRETE_GPU


def _memory(adapter: DirectMLAdapter) -> int | None:
    """Dedicated memory; an integrated adapter also uses the host's shared memory."""
    own, shared = adapter.dedicated_memory_bytes, adapter.shared_memory_bytes
    if adapter.integrated is None or own is None:
        return None
    if not adapter.integrated:
        return own
    return None if shared is None else own + shared


def _named_vendor(name: str) -> str:
    words = set(re.findall(r"\w+", name.lower()))
    return next((vendor for vendor in _VENDORS.values() if vendor.lower() in words), "")
