"""The system's edge: COM objects in this process's memory, with the tables of methods that DXCore's have."""

import ctypes
import struct
import uuid
from functools import partial
from typing import Any

import msgspec

from domains.device.directml.com import FUNCTION, GUID_POINTER, HRESULT, OUT_POINTER
from domains.device.directml.dxcore import DxCore
from domains.device.directml.dxcore_adapter import Property

E_INVALID_ARGUMENT = -0x7FF8FFA9
E_NO_INTERFACE = -0x7FFFBFFE
REMOVED = -0x7785FFFB
"""DXGI_ERROR_DEVICE_REMOVED, 0x887A0005."""

FACTORY = uuid.UUID("78ee5945-c36e-4b13-a669-005dd11c0f06")
LIST = uuid.UUID("526c7776-40e9-459b-b711-f32ad76dfc28")
ADAPTER = uuid.UUID("f0db4c7f-fe5a-42a2-bd62-f2a6cf6fc83e")
COMPUTE = uuid.UUID("248e2800-a793-4724-abaa-23a6de1be090")
GRAPHICS = uuid.UUID("0c9ece4d-2f6e-4f01-8c96-e89e331b47b1")

U32, SIZE, POINTER = ctypes.c_uint32, ctypes.c_size_t, ctypes.c_void_p


def luid(high: int, low: int) -> bytes:
    """As Windows lays it out."""
    return struct.pack("<Ii", low, high)


class FakeAdapter(msgspec.Struct, kw_only=True):
    """One adapter; a property that it lacks is not supported."""

    properties: dict[Property, bytes]
    speed: int = 0
    """The system sorts by it."""
    graphics: bool = True
    failing: dict[Property, int] = {}
    """What GetProperty answers for these."""


def gpu(name: str = "AMD Radeon RX 7800 XT", *, speed: int = 0, low: int = 0xFEDC, **others: bytes) -> FakeAdapter:
    """A discrete one. `others`: properties by name, in place of those here."""
    properties = {
        Property.INSTANCE_LUID: luid(0, low),
        Property.DRIVER_VERSION: struct.pack("<HHHH", 6093, 15, 1, 31),
        Property.DRIVER_DESCRIPTION: name.encode() + b"\0",
        Property.HARDWARE_ID: struct.pack("<4I", 0x1002, 0x747E, 0, 0xC8),
        Property.HARDWARE_ID_PARTS: struct.pack("<5I", 0x1002, 0x747E, 1, 2, 0xC8),
        Property.DEDICATED_ADAPTER_MEMORY: struct.pack("<Q", 16 << 30),
        Property.SHARED_SYSTEM_MEMORY: struct.pack("<Q", 8 << 30),
        Property.IS_HARDWARE: b"\1",
        Property.IS_INTEGRATED: b"\0",
    }
    return FakeAdapter(properties=properties | {Property[key]: value for key, value in others.items()}, speed=speed)


class FakeDxCore:
    """The library. What it handed out and was not given back is in `held`."""

    def __init__(self, *adapters: FakeAdapter) -> None:
        self.adapters = list(adapters)
        self.failing: dict[str, int] = {}
        """What a call answers, by its name: `Sort`."""
        self.held: dict[int, int] = {}
        """References by address."""
        self._kept: list[Any] = []
        self._listed: list[FakeAdapter] = []
        self.create = FUNCTION(HRESULT, GUID_POINTER, OUT_POINTER)(self._create_factory)

    def dxcore(self, *, guest: bool = False) -> DxCore:
        """The real reader, of this library."""
        return DxCore(self.create, guest=guest)

    def _create_factory(self, interface: Any, out: Any) -> int:
        return self._hand_out(
            FACTORY, interface, out, {3: (self._create_list, HRESULT, U32, *[GUID_POINTER] * 2, OUT_POINTER)}
        )

    def _create_list(self, this: int, count: int, attributes: Any, interface: Any, out: Any) -> int:
        assert [_uuid(attributes[index]) for index in range(count)] == [COMPUTE]
        self._listed = list(self.adapters)
        methods = {
            3: (self._get_adapter, HRESULT, U32, GUID_POINTER, OUT_POINTER),
            4: (self._count, U32),
            7: (self._sort, HRESULT, U32, ctypes.POINTER(U32)),
        }
        return self.failing.get("CreateAdapterList") or self._hand_out(LIST, interface, out, methods)

    def _count(self, this: int) -> int:
        return len(self._listed)

    def _sort(self, this: int, count: int, preferences: Any) -> int:
        assert preferences[:count] == [2]
        self._listed.sort(key=lambda adapter: -adapter.speed)
        return self.failing.get("Sort", 0)

    def _get_adapter(self, this: int, index: int, interface: Any, out: Any) -> int:
        adapter = self._listed[index]
        methods = {
            4: (partial(_has_attribute, adapter), ctypes.c_bool, GUID_POINTER),
            5: (partial(_has_property, adapter), ctypes.c_bool, U32),
            6: (partial(_get, adapter), HRESULT, U32, SIZE, POINTER),
            7: (partial(_get_size, adapter), HRESULT, U32, ctypes.POINTER(SIZE)),
        }
        return self.failing.get("GetAdapter") or self._hand_out(ADAPTER, interface, out, methods)

    def _hand_out(self, is_a: uuid.UUID, wanted: Any, out: Any, methods: dict[int, tuple[Any, ...]]) -> int:
        """An object in memory: a pointer to a table of methods, of which those that nobody should call are empty."""
        if _uuid(wanted[0]) != is_a:
            return E_NO_INTERFACE
        named = {
            slot: FUNCTION(result, POINTER, *arguments)(call) for slot, (call, result, *arguments) in methods.items()
        }
        named[2] = FUNCTION(U32, POINTER)(self._release)
        table = (POINTER * 16)(
            *(ctypes.cast(named[slot], POINTER).value if slot in named else None for slot in range(16))
        )
        this = POINTER(ctypes.addressof(table))
        self._kept += [named, table, this]
        self.held[ctypes.addressof(this)] = 1
        out[0] = ctypes.addressof(this)
        return 0

    def _release(self, this: int) -> int:
        self.held[this] -= 1
        return self.held[this]


def _uuid(guid: Any) -> uuid.UUID:
    return uuid.UUID(bytes_le=bytes(guid))


def _has_attribute(adapter: FakeAdapter, this: int, attribute: Any) -> bool:
    return adapter.graphics and _uuid(attribute[0]) == GRAPHICS


def _has_property(adapter: FakeAdapter, this: int, what: int) -> bool:
    return what in adapter.properties


def _get(adapter: FakeAdapter, this: int, what: int, size: int, place: int) -> int:
    value = adapter.properties[Property(what)]
    if size < len(value):
        return E_INVALID_ARGUMENT
    ctypes.memmove(place, value, len(value))
    return adapter.failing.get(Property(what), 0)


def _get_size(adapter: FakeAdapter, this: int, what: int, size: Any) -> int:
    size[0] = len(adapter.properties[Property(what)])
    return 0
