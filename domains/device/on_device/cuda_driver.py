"""UUID and PCI bus id of a CUDA ordinal, from the driver: only newer versions of torch report them.

The driver's ordinals are torch's: both follow CUDA_VISIBLE_DEVICES and CUDA_DEVICE_ORDER; NVML follows neither.
"""

import ctypes
import sys
import uuid


def identity(ordinal: int) -> tuple[str, str]:
    """UUID without prefix, and PCI bus id (`0000:65:00.0`). Empty: the driver does not report it."""
    try:
        cuda = ctypes.CDLL("nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1")
    except OSError:
        return "", ""
    device = ctypes.c_int()
    if cuda.cuInit(0) or cuda.cuDeviceGet(ctypes.byref(device), ordinal):
        return "", ""
    number, place = (ctypes.c_ubyte * 16)(), ctypes.create_string_buffer(32)
    known = not cuda.cuDeviceGetUuid(number, device)
    placed = not cuda.cuDeviceGetPCIBusId(place, len(place), device)
    return str(uuid.UUID(bytes=bytes(number))) if known else "", place.value.decode().lower() if placed else ""
