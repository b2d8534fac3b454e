"""Objects of COM, as far as asking a driver needs them: methods by their place in the table, and references to give back."""

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
"""How a method is called here."""

HRESULT = ctypes.c_int32
"""Below zero: it failed. ctypes' own is there on Windows alone, and would raise an OSError."""


class Guid(ctypes.Structure):
    """Which interface, or which attribute."""

    _fields_ = (
        ("data1", ctypes.c_uint32),
        ("data2", ctypes.c_uint16),
        ("data3", ctypes.c_uint16),
        ("data4", ctypes.c_ubyte * 8),
    )


GUID_POINTER = ctypes.POINTER(Guid)
OUT_POINTER = ctypes.POINTER(ctypes.c_void_p)


def guid(text: str) -> Guid:
    """From its usual form."""
    return Guid.from_buffer_copy(uuid.UUID(text).bytes_le)


class Method(NamedTuple):
    """One method of an interface."""

    name: str
    """For errors: `IDXCoreAdapterList::Sort`."""
    slot: int
    """Its place in the table, after the three that every interface begins with."""
    result: type[Any]
    arguments: tuple[type[Any], ...] = ()
    """Without the object itself."""


_RELEASE = Method("IUnknown::Release", 2, ctypes.c_uint32)


class ComObject:
    """A reference to one object; given back at the end of its `with`."""

    def __init__(self, address: int) -> None:
        self._address = address

    def __enter__(self) -> "ComObject":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.call(_RELEASE)

    def call(self, method: Method, *arguments: Any) -> Any:
        """What the method answers. Raises DRIVER_ERROR for an HRESULT that tells of a failure."""
        table = ctypes.cast(self._address, ctypes.POINTER(ctypes.POINTER(ctypes.c_void_p)))[0]
        function = FUNCTION(method.result, ctypes.c_void_p, *method.arguments)(table[method.slot])
        answer = function(self._address, *arguments)
        if method.result is HRESULT:
            check(method.name, answer)
        return answer

    def obtain(self, method: Method, *arguments: Any, interface: Guid) -> "ComObject":
        """The object that a method hands out, where its last two arguments are the interface and the place for it."""
        place = ctypes.c_void_p()
        self.call(method, *arguments, ctypes.byref(interface), ctypes.byref(place))
        return held(method.name, place)


def held(call: str, place: ctypes.c_void_p) -> ComObject:
    """The object that a call has put there."""
    if place.value is None:
        raise InternalError(f"{call} succeeded and handed out nothing", ErrorReason.DRIVER_ERROR, call=call)
    return ComObject(place.value)


def check(call: str, code: int) -> None:
    """Raise DRIVER_ERROR if it failed."""
    if code < 0:
        number = f"0x{code & 0xFFFFFFFF:08X}"
        message = f"{call} failed with {number}; update the graphics driver, or restart the machine"
        raise InternalError(message, ErrorReason.DRIVER_ERROR, call=call, hresult=number)
