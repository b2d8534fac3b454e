"""A device: hardware that jobs run on."""

from enum import StrEnum

import msgspec

OWN_NODE = ""
"""Id of the node that is the server's own machine."""


class DeviceKind(StrEnum):
    """Kind of hardware."""

    UNSPECIFIED = "unspecified"
    """The driver does not report it."""
    CPU = "cpu"
    DISCRETE_GPU = "discrete_gpu"
    INTEGRATED_GPU = "integrated_gpu"
    SIMULATED = "simulated"


class Backend(StrEnum):
    """The runtime that drives the device."""

    CPU = "cpu"
    CUDA = "cuda"
    ROCM = "rocm"
    DIRECTML = "directml"
    SIMULATED = "simulated"


class DeviceState(StrEnum):
    """State of a device. If several apply, the device has the one that is listed last here."""

    STARTING = "starting"
    AVAILABLE = "available"
    BUSY = "busy"
    DEGRADED = "degraded"
    DRAINING = "draining"
    DISABLED = "disabled"
    RECOVERING = "recovering"
    QUARANTINED = "quarantined"
    LOST = "lost"


class PrecisionSupport(msgspec.Struct, frozen=True, kw_only=True):
    """Whether the device computes correctly in one precision, by trial."""

    precision: str
    """Torch's name: `bfloat16`."""
    supported: bool
    detail: str = ""
    """What failed. Empty if supported."""


class Device(msgspec.Struct, frozen=True, kw_only=True):
    """One device as its worker found it. What could not be measured is absent."""

    id: str
    """`cpu`, `sim-0`, or `gpu-` and the first 8 hex digits of the driver's UUID: the same after every restart."""
    aliases: tuple[str, ...]
    """Other names that requests may use: `cuda:0`, `0`. Never returned as the id."""
    display_name: str
    kind: DeviceKind
    backend: Backend
    backend_index: int
    """Ordinal within the backend."""
    vendor: str
    total_memory_bytes: int | None
    precision_support: tuple[PrecisionSupport, ...]
    """Each precision that was tried with a small matrix product on the device."""
    quantizations: tuple[str, ...] = ()
    """Ways to store weights in fewer bits that the device can widen, found by trial: `fp8_e4m3`, `int8`."""
    features: tuple[str, ...] = ()
    """Other features found by trial: `pinned_memory`, `flash_attention`, `memory_efficient_attention`, `cudnn_attention`,
    `compile`."""
    compute_units: int | None = None
    """Cores of a CPU, multiprocessors of a GPU."""
    max_clock_mhz: int | None = None
    allocation_alignment_bytes: int | None = None
    """Allocations are multiples of this."""
    architecture: str = ""
    """The vendor's name: `hopper`, `x86_64`."""
    compute_capability: str = ""
    driver_name: str = ""
    driver_version: str = ""
    runtime_version: str = ""
    """`CUDA 13.0`, `ROCm 6.4`, `DirectML 1.15`."""
    firmware_version: str = ""
    pci_bus_id: str = ""
    pci_vendor_id: int | None = None
    pci_device_id: int | None = None
    adapter_luid: int | None = None
    """DXGI's LUID, high part in the upper 32 bits. Only on Windows, for DirectML."""
    uuid: str = ""
    worker_pid: int = 0
    """The process that owns the device."""
    libraries: tuple[str, ...] = ()
    """Versions of the libraries that compute: `torch 2.14.1`."""
    node_id: str = OWN_NODE
    """The machine that the device belongs to."""
    probe_time_s: float = 0.0
    """Unix time of the worker's probe."""

    @property
    def precisions(self) -> tuple[str, ...]:
        """Precisions in which the device computes correctly."""
        return tuple(tried.precision for tried in self.precision_support if tried.supported)
