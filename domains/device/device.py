"""A device: hardware that work can run on."""

from enum import StrEnum

import msgspec


class DeviceKind(StrEnum):
    """What sort of hardware."""

    CPU = "cpu"
    DISCRETE_GPU = "discrete_gpu"
    INTEGRATED_GPU = "integrated_gpu"


class Backend(StrEnum):
    """The runtime that drives it."""

    CPU = "cpu"
    CUDA = "cuda"


class DeviceState(StrEnum):
    """Whether it takes work."""

    STARTING = "starting"
    AVAILABLE = "available"
    BUSY = "busy"
    RECOVERING = "recovering"
    LOST = "lost"


class Device(msgspec.Struct, frozen=True, kw_only=True):
    """One device as its worker found it. What could not be measured is absent."""

    id: str
    """`cpu`, or `gpu-` and the first 8 hex digits of the driver's UUID: the same after every restart."""
    aliases: tuple[str, ...]
    """Other names that requests may use: `cuda:0`, `0`. Never returned as the id."""
    display_name: str
    kind: DeviceKind
    backend: Backend
    backend_index: int
    """The ordinal inside the backend."""
    vendor: str
    total_memory_bytes: int
    precisions: tuple[str, ...]
    """Those that a small product on the device computed right, in torch's words."""
    compute_units: int | None = None
    """Cores of a CPU, multiprocessors of a GPU."""
    compute_capability: str = ""
    driver_version: str = ""
    runtime_version: str = ""
    """CUDA's, where there is one."""
    pci_bus_id: str = ""
    uuid: str = ""
    worker_pid: int = 0
    """The process that owns it."""
    libraries: tuple[str, ...] = ()
    """Versions of what computes there: `torch 2.14.1`."""
