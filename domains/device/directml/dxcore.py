"""DXCore: the operating system's list of adapters that compute, without torch or DirectML.

Windows 10 2004 and later have it, and WSL. torch-directml 0.2.5 uses the same list: hardware adapters that compute with
Direct3D 12, the fastest first; it leaves out adapters on which no Direct3D device can be created.
"""

import ctypes
import sys
from collections.abc import Callable
from typing import Any

from domains.device.directml.adapter import DirectMLAdapter
from domains.device.directml.com import GUID_POINTER, HRESULT, OUT_POINTER, ComObject, Method, check, guid, held
from domains.device.directml.dxcore_adapter import described

_WSL_LIBRARY = "/usr/lib/wsl/lib/libdxcore.so"
_SYSTEM_FOLDER_ONLY = 0x800
"""LOAD_LIBRARY_SEARCH_SYSTEM32: load the library from the system folder only."""

_FACTORY = guid("78ee5945-c36e-4b13-a669-005dd11c0f06")
_LIST = guid("526c7776-40e9-459b-b711-f32ad76dfc28")
_ADAPTER = guid("f0db4c7f-fe5a-42a2-bd62-f2a6cf6fc83e")
_D3D12_CORE_COMPUTE = guid("248e2800-a793-4724-abaa-23a6de1be090")
_HIGH_PERFORMANCE = 2

_CREATE = "DXCoreCreateAdapterFactory"
_CREATE_LIST = Method(
    "IDXCoreAdapterFactory::CreateAdapterList", 3, HRESULT, (ctypes.c_uint32, GUID_POINTER, GUID_POINTER, OUT_POINTER)
)
_GET_ADAPTER = Method("IDXCoreAdapterList::GetAdapter", 3, HRESULT, (ctypes.c_uint32, GUID_POINTER, OUT_POINTER))
_GET_COUNT = Method("IDXCoreAdapterList::GetAdapterCount", 4, ctypes.c_uint32)
_SORT = Method("IDXCoreAdapterList::Sort", 7, HRESULT, (ctypes.c_uint32, ctypes.POINTER(ctypes.c_uint32)))


class DxCore:
    """The DXCore library."""

    def __init__(self, create: Callable[[Any, Any], int], *, guest: bool) -> None:
        """`create`: DXCoreCreateAdapterFactory. `guest`: this is WSL, whose LUIDs differ from those of Windows."""
        self._create = create
        self._guest = guest

    def adapters(self) -> tuple[DirectMLAdapter, ...]:
        """The present hardware adapters, in DirectML's order. Blocks. Raises DRIVER_ERROR."""
        with self._factory() as factory, _list(factory) as listed:
            listed.call(_SORT, 1, ctypes.byref(ctypes.c_uint32(_HIGH_PERFORMANCE)))
            found = [self._adapter(listed, index) for index in range(listed.call(_GET_COUNT))]
        return tuple(adapter for adapter in found if adapter is not None)

    def _factory(self) -> ComObject:
        # A new factory for each call: it is cheap, and an old one does not see a changed driver.
        place = ctypes.c_void_p()
        check(_CREATE, self._create(ctypes.byref(_FACTORY), ctypes.byref(place)))
        return held(_CREATE, place)

    def _adapter(self, listed: ComObject, index: int) -> DirectMLAdapter | None:
        with listed.obtain(_GET_ADAPTER, index, interface=_ADAPTER) as adapter:
            return described(adapter, guest=self._guest)


def _list(factory: ComObject) -> ComObject:
    return factory.obtain(_CREATE_LIST, 1, ctypes.byref(_D3D12_CORE_COMPUTE), interface=_LIST)


def open_dxcore() -> DxCore | None:
    """The library; None: this system has none."""
    try:
        create = _library().DXCoreCreateAdapterFactory
    except (OSError, AttributeError):
        return None
    create.restype, create.argtypes = HRESULT, (GUID_POINTER, OUT_POINTER)
    return DxCore(create, guest=sys.platform != "win32")


def _library() -> ctypes.CDLL:
    if sys.platform == "win32":
        return ctypes.WinDLL("dxcore.dll", winmode=_SYSTEM_FOLDER_ONLY)
    return ctypes.CDLL(_WSL_LIBRARY)
