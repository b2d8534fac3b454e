"""Calls COM objects through ctypes: methods by their position in the table, and release of references."""

import ctypes
import sys
import uuid
from types import TracebackType
from typing import Any, NamedTuple

from domains.errors import ErrorReason, InternalError

if sys.platform == "win32":
    FUNCTION = ctypes.WINFUNCTYPE
else:
    FUNCTION = ctypes.CFUNCTYPE
"""Calling convention of COM methods."""

HRESULT = ctypes.c_int32
"""Negative: failure. ctypes.HRESULT exists on Windows only, and would raise an OSError."""


class Guid(ctypes.Structure):
    """Id of an interface or an attribute."""

    _fields_ = (
        ("data1", ctypes.c_uint32),
        ("data2", ctypes.c_uint16),
        ("data3", ctypes.c_uint16),
        ("data4", ctypes.c_ubyte * 8),
    )


GUID_POINTER = ctypes.POINTER(Guid)
OUT_POINTER = ctypes.POINTER(ctypes.c_void_p)


def guid(text: str) -> Guid:
    """A Guid from its text form."""
    return Guid.from_buffer_copy(uuid.UUID(text).bytes_le)


class Method(NamedTuple):
    """One method of an interface."""

    name: str
    """For errors: `IDXCoreAdapterList::Sort`."""
    slot: int
    """Position in the method table, which begins with IUnknown's three methods."""
    result: type[Any]
    arguments: tuple[type[Any], ...] = ()
    """Without the object itself."""


_RELEASE = Method("IUnknown::Release", 2, ctypes.c_uint32)


class ComObject:
    """A reference to one object; `with` releases it."""

    def __init__(self, address: int) -> None:
        self._address = address

    def __enter__(self) -> "ComObject":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.call(_RELEASE)

    def call(self, method: Method, *arguments: Any) -> Any:
        """Call a method and return its result. Raises DRIVER_ERROR for an HRESULT that means failure."""
        table = ctypes.cast(self._address, ctypes.POINTER(ctypes.POINTER(ctypes.c_void_p)))[0]
        function = FUNCTION(method.result, ctypes.c_void_p, *method.arguments)(table[method.slot])
        answer = function(self._address, *arguments)
        if method.result is HRESULT:
            check(method.name, answer)
        return answer

    def obtain(self, method: Method, *arguments: Any, interface: Guid) -> "ComObject":
        """The object that a method returns through its last two arguments, interface and address."""
        place = ctypes.c_void_p()
        self.call(method, *arguments, ctypes.byref(interface), ctypes.byref(place))
        return held(method.name, place)


def held(call: str, place: ctypes.c_void_p) -> ComObject:
    """The object that a call stored at an address."""
    if place.value is None:
        raise InternalError(f"{call} succeeded and handed out nothing", ErrorReason.DRIVER_ERROR, call=call)
    return ComObject(place.value)


def check(call: str, code: int) -> None:
    """Raise DRIVER_ERROR for a code that means failure."""
    if code < 0:
        number = f"0x{code & 0xFFFFFFFF:08X}"
        message = f"{call} failed with {number}; update the graphics driver, or restart the machine"
        raise InternalError(message, ErrorReason.DRIVER_ERROR, call=call, hresult=number)
