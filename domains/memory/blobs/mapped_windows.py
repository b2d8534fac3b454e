"""Named shared memory of another process. Windows only: other systems use a file under /dev/shm.

The pages of a section stay valid while a view is mapped, and a section cannot shrink, so the server may read a view,
unlike a mapped file. Win32 functions: OpenFileMappingW, MapViewOfFile, VirtualQuery, UnmapViewOfFile.
"""

import ctypes
import sys

from domains.errors import ErrorReason, FailedPrecondition

if sys.platform == "win32":
    from ctypes import wintypes

    _FILE_MAP_READ = 0x0004
    _kernel = ctypes.WinDLL("kernel32", use_last_error=True)
    _kernel.OpenFileMappingW.argtypes = (wintypes.DWORD, wintypes.BOOL, wintypes.LPCWSTR)
    _kernel.OpenFileMappingW.restype = wintypes.HANDLE
    _kernel.MapViewOfFile.argtypes = (
        wintypes.HANDLE,
        wintypes.DWORD,
        wintypes.DWORD,
        wintypes.DWORD,
        ctypes.c_size_t,
    )
    _kernel.MapViewOfFile.restype = wintypes.LPVOID
    _kernel.UnmapViewOfFile.argtypes = (wintypes.LPCVOID,)
    _kernel.CloseHandle.argtypes = (wintypes.HANDLE,)

    class _MemoryInformation(ctypes.Structure):
        """MEMORY_BASIC_INFORMATION of 64-bit Windows."""

        _fields_ = (
            ("base_address", ctypes.c_void_p),
            ("allocation_base", ctypes.c_void_p),
            ("allocation_protect", wintypes.DWORD),
            ("partition_id", wintypes.WORD),
            ("region_size", ctypes.c_size_t),
            ("state", wintypes.DWORD),
            ("protect", wintypes.DWORD),
            ("type", wintypes.DWORD),
        )

    _kernel.VirtualQuery.argtypes = (wintypes.LPCVOID, ctypes.POINTER(_MemoryInformation), ctypes.c_size_t)
    _kernel.VirtualQuery.restype = ctypes.c_size_t

    class SharedMemoryView:
        """A read-only view of a whole named section. ILLEGAL_STATE if there is none."""

        def __init__(self, name: str) -> None:
            handle = _kernel.OpenFileMappingW(_FILE_MAP_READ, False, name)
            if not handle:
                raise _no_memory(name, ctypes.get_last_error())
            # The view keeps the section alive without the handle.
            self._address = _kernel.MapViewOfFile(handle, _FILE_MAP_READ, 0, 0, 0)
            failure = ctypes.get_last_error()
            _kernel.CloseHandle(handle)
            if not self._address:
                raise _no_memory(name, failure)
            told = _MemoryInformation()
            _kernel.VirtualQuery(self._address, ctypes.byref(told), ctypes.sizeof(told))
            self.size_bytes: int = told.region_size
            """The size of the section, rounded up to whole pages."""

        def read(self, offset: int, size: int) -> bytes:
            """Read a piece inside the view."""
            return ctypes.string_at(self._address + offset, size)

        def close(self) -> None:
            """Unmap the view. To be called once, when no read runs."""
            _kernel.UnmapViewOfFile(self._address)


def _no_memory(name: str, code: int) -> FailedPrecondition:
    message = f"there is no readable shared memory {name!r} (Windows error {code}); make it before it is registered"
    return FailedPrecondition(message, ErrorReason.ILLEGAL_STATE, shared_memory=name, error_code=code)
