"""Name, vendor, architecture and clocks of the host's processor, from the operating system."""

import platform
from pathlib import Path
from typing import Any

import psutil

_VENDORS = {"AuthenticAMD": "AMD", "GenuineIntel": "Intel", "HygonGenuine": "Hygon", "0x41": "ARM", "0x61": "Apple"}
_CPUINFO = Path("/proc/cpuinfo")


def cpu_name() -> str:
    """For people: `AMD EPYC 9654`."""
    return cpu_field("model name") or _registry("ProcessorNameString") or platform.processor() or platform.machine()


def cpu_vendor() -> str:
    """`AMD`, `Intel`; another vendor's own id. Empty: the system does not report it."""
    said = cpu_field("vendor_id") or _registry("VendorIdentifier") or cpu_field("CPU implementer")
    return _VENDORS.get(said, said)


def cpu_architecture() -> str:
    """`x86_64`, `aarch64`."""
    return {"amd64": "x86_64", "arm64": "aarch64"}.get(platform.machine().lower(), platform.machine().lower())


def cpu_max_clock_mhz() -> int | None:
    """None: the system does not report it, as in many virtual machines."""
    clock = _clock()
    return round(clock.max) if clock and clock.max else None


def cpu_clock_mhz() -> int | None:
    """Present clock, mean of all cores; None: the system does not report it."""
    clock = _clock()
    return round(clock.current) if clock and clock.current else None


def _clock() -> Any:
    """Result of psutil, a tuple without a public name: `current`, `min`, `max`."""
    try:
        return psutil.cpu_freq()
    except (OSError, RuntimeError, NotImplementedError):
        return None


def cpu_field(name: str) -> str:
    """A field of /proc/cpuinfo; empty: there is none."""
    try:
        lines = _CPUINFO.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return ""
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith(name) and ":" in line), "")


def _registry(name: str) -> str:
    """A value of the processor's key in the Windows registry; empty on other systems."""
    try:
        import winreg
    except ImportError:
        return ""
    path = r"HARDWARE\DESCRIPTION\System\CentralProcessor\0"
    with winreg.OpenKey(winreg.HKEY_LOCAL_MACHINE, path) as key:  # pyright: ignore[reportAttributeAccessIssue]  # Windows
        return str(winreg.QueryValueEx(key, name)[0]).strip()  # pyright: ignore[reportAttributeAccessIssue]  # Windows
