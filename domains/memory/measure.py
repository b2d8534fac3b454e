"""A measurement of memory by the allocator, the driver and the operating system."""

from enum import StrEnum
from typing import Final

import msgspec

from domains.errors import ErrorReason, InternalError

NAMED_BLOBS: Final = 1024
"""Most blobs of the server that a measurement names, the largest first. Those beyond are one owner without an id."""


class OwnerKind(StrEnum):
    """The kinds of owners of memory."""

    LOADED_MODEL = "loaded_model"
    JOB = "job"
    BLOB = "blob"
    CACHE = "cache"
    RUNTIME = "runtime"
    UNATTRIBUTED = "unattributed"


class MemoryOwner(msgspec.Struct, frozen=True, kw_only=True):
    """The memory of one owner in one pool."""

    kind: OwnerKind
    live_bytes: int
    id: str = ""
    """Id of the loaded model, job or blob, or the name of the cache. Empty for a blob: several, each smaller than those
    that are named."""
    session_id: str = ""
    reclaimable: bool = False
    """Whether a clean-up may free it: idle, not pinned and not in use."""

    @property
    def several(self) -> bool:
        """Whether these are several blobs together."""
        return self.kind is OwnerKind.BLOB and not self.id


class MemoryMeasure(msgspec.Struct, frozen=True, kw_only=True):
    """One pool at one moment. Figures that cannot be measured are absent."""

    time_s: float
    """Unix time."""
    total_bytes: int | None = None
    used_bytes: int | None = None
    """In use by all processes."""
    held_bytes: int | None = None
    """Held by this server and its workers, the allocator's cache included."""
    live_bytes: int | None = None
    """The part of `held_bytes` that is in use. The owners add up to it."""
    peak_live_bytes: int | None = None
    """The highest `live_bytes` of the allocator since the worker started, also between two measurements."""
    cached_bytes: int | None = None
    """The part of `held_bytes` that the allocator keeps for the next use."""
    pinned_bytes: int | None = None
    """The part of `held_bytes` that is page-locked."""
    largest_free_block_bytes: int | None = None
    """The largest block that the allocator can hand out without more memory from the driver."""
    fragmentation_ratio: float | None = None
    """Share of the allocator's free memory outside its largest free block. None: it has no free memory."""
    allocation_count: int | None = None
    """Allocations since the worker started."""
    allocation_failure_count: int = 0
    owners: tuple[MemoryOwner, ...] = ()
    host_owners: tuple[MemoryOwner, ...] = ()
    """For a device: owners of its worker's host memory. The figures above do not include it."""


def not_told(pool_id: str, error: OSError) -> InternalError:
    """The error if the system cannot report the memory, for instance because no descriptor is free."""
    problem = error.strerror or type(error).__name__
    message = f"the system does not tell the memory of {pool_id} ({problem}); retry"
    return InternalError(message, ErrorReason.DRIVER_ERROR, memory_pool_id=pool_id, problem=problem)
