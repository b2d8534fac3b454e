"""Memory as measured: by the allocator, the driver and the operating system."""

from enum import StrEnum

import msgspec


class OwnerKind(StrEnum):
    """Who holds memory."""

    LOADED_MODEL = "loaded_model"
    JOB = "job"
    BLOB = "blob"
    CACHE = "cache"
    RUNTIME = "runtime"
    UNATTRIBUTED = "unattributed"


class MemoryOwner(msgspec.Struct, frozen=True, kw_only=True):
    """What one owner holds in one pool."""

    kind: OwnerKind
    live_bytes: int
    id: str = ""
    """Of the loaded model, job or blob, or the name of the cache."""
    session_id: str = ""
    reclaimable: bool = False
    """Idle, not pinned, not in use."""


class MemoryMeasure(msgspec.Struct, frozen=True, kw_only=True):
    """One pool at one moment. What cannot be measured is absent."""

    time_s: float
    """Unix time."""
    total_bytes: int | None = None
    used_bytes: int | None = None
    """In use by all processes."""
    held_bytes: int | None = None
    """By this server and its workers, the allocator's cache included."""
    live_bytes: int | None = None
    """Of that, in use. The owners add up to it."""
    peak_live_bytes: int | None = None
    """The highest `live_bytes` that the allocator has seen since its worker's start, between two measurements too."""
    cached_bytes: int | None = None
    """Of `held_bytes`, kept for the next use."""
    pinned_bytes: int | None = None
    """Of `held_bytes`, page-locked."""
    largest_free_block_bytes: int | None = None
    """The largest piece that the allocator can hand out without asking the driver for more."""
    fragmentation_ratio: float | None = None
    """Share of the allocator's free memory outside its largest free block; absent: nothing is free there."""
    allocation_count: int | None = None
    """Since the worker's start."""
    allocation_failure_count: int = 0
    owners: tuple[MemoryOwner, ...] = ()
