"""Reads the properties of one DXCore adapter. An adapter may lack any of them."""

import ctypes
from enum import IntEnum
from typing import Any

from domains.device.directml.adapter import DirectMLAdapter
from domains.device.directml.com import GUID_POINTER, HRESULT, ComObject, Method, guid

_D3D12_GRAPHICS = guid("0c9ece4d-2f6e-4f01-8c96-e89e331b47b1")

_HAS_ATTRIBUTE = Method("IDXCoreAdapter::IsAttributeSupported", 4, ctypes.c_bool, (GUID_POINTER,))
_HAS_PROPERTY = Method("IDXCoreAdapter::IsPropertySupported", 5, ctypes.c_bool, (ctypes.c_uint32,))
_GET = Method("IDXCoreAdapter::GetProperty", 6, HRESULT, (ctypes.c_uint32, ctypes.c_size_t, ctypes.c_void_p))
_GET_SIZE = Method("IDXCoreAdapter::GetPropertySize", 7, HRESULT, (ctypes.c_uint32, ctypes.POINTER(ctypes.c_size_t)))


class Property(IntEnum):
    """The values of DXCoreAdapterProperty that are read here."""

    INSTANCE_LUID = 0
    DRIVER_VERSION = 1
    DRIVER_DESCRIPTION = 2
    HARDWARE_ID = 3
    DEDICATED_ADAPTER_MEMORY = 7
    SHARED_SYSTEM_MEMORY = 9
    IS_HARDWARE = 11
    IS_INTEGRATED = 12
    HARDWARE_ID_PARTS = 14


def described(adapter: ComObject, *, guest: bool) -> DirectMLAdapter | None:
    """The adapter; None: it is software. `guest`: its LUID is valid in the guest only. Raises DRIVER_ERROR."""
    if not _flag(adapter, Property.IS_HARDWARE):
        return None
    vendor, device = _pci_ids(adapter)
    return DirectMLAdapter(
        name=_text(adapter, Property.DRIVER_DESCRIPTION),
        # In memory the low part comes first, then the signed high part: together a 64-bit number.
        luid=None if guest else _number(adapter, Property.INSTANCE_LUID, ctypes.c_int64),
        driver_version=_version(_number(adapter, Property.DRIVER_VERSION, ctypes.c_uint64)),
        pci_vendor_id=vendor,
        pci_device_id=device,
        dedicated_memory_bytes=_number(adapter, Property.DEDICATED_ADAPTER_MEMORY, ctypes.c_uint64),
        shared_memory_bytes=_number(adapter, Property.SHARED_SYSTEM_MEMORY, ctypes.c_uint64),
        integrated=_flag(adapter, Property.IS_INTEGRATED),
        graphics=adapter.call(_HAS_ATTRIBUTE, ctypes.byref(_D3D12_GRAPHICS)),
    )


def _read(adapter: ComObject, what: Property, value: Any) -> Any:
    """`value`, filled with the property; None: the adapter lacks it."""
    if not adapter.call(_HAS_PROPERTY, what):
        return None
    get = _GET._replace(name=f"{_GET.name}({what.name})")
    adapter.call(get, what, ctypes.sizeof(value), ctypes.byref(value))
    return value


def _number(adapter: ComObject, what: Property, kind: type[Any]) -> int | None:
    found = _read(adapter, what, kind())
    return None if found is None else int(found.value)


def _flag(adapter: ComObject, what: Property) -> bool | None:
    found = _read(adapter, what, ctypes.c_bool())
    return None if found is None else bool(found.value)


def _text(adapter: ComObject, what: Property) -> str:
    if not adapter.call(_HAS_PROPERTY, what):
        return ""
    size = ctypes.c_size_t()
    adapter.call(_GET_SIZE._replace(name=f"{_GET_SIZE.name}({what.name})"), what, ctypes.byref(size))
    found = _read(adapter, what, ctypes.create_string_buffer(size.value))
    # Stripped as the worker strips the names from torch-directml.
    return found.value.decode(errors="replace").strip("\0 ")


def _pci_ids(adapter: ComObject) -> tuple[int | None, int | None]:
    """Vendor and device id. None: the adapter is not on a PCI bus, and its ids are wider ones of another kind."""
    found = _read(adapter, Property.HARDWARE_ID_PARTS, (ctypes.c_uint32 * 5)())
    if found is None:
        found = _read(adapter, Property.HARDWARE_ID, (ctypes.c_uint32 * 4)())
    if found is None:
        return None, None
    # Both forms begin with these two.
    vendor, device = found[:2]
    return (vendor, device) if 0 < vendor <= 0xFFFF and device <= 0xFFFF else (None, None)


def _version(packed: int | None) -> str:
    """Version from four words, the most significant first."""
    return "" if not packed else ".".join(str(packed >> shift & 0xFFFF) for shift in (48, 32, 16, 0))
