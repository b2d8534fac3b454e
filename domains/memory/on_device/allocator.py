"""What the allocator holds, and making it give back.

runtime_bytes = start(device)                              # first of all, before anything else uses the device
measure(device, owners, runtime_bytes)                     → MemoryMeasure
empty_caches(device), compact(device)                      → bytes that they gave back, measured
"""

import gc
import time
from collections.abc import Mapping, Sequence
from typing import Any, cast

import msgspec
import psutil
import torch

from domains.memory.measure import MemoryMeasure, MemoryOwner, OwnerKind
from domains.memory.on_device.driver import device_used_bytes, process_bytes, trim_heap

_OURS_TO_SAY = (OwnerKind.RUNTIME, OwnerKind.UNATTRIBUTED)


def start(name: str) -> int | None:
    """Bring the runtime up, and tell what that took; None: it was up already, or the driver does not tell.

    `name`: as torch calls it. Exact if no other process takes or gives back memory at the same time.
    """
    device = torch.device(name)
    if device.type != "cuda" or torch.cuda.is_initialized():
        return None
    before = device_used_bytes(device)
    torch.zeros(1, device=device)
    after = device_used_bytes(device)
    taken = None if before is None or after is None else after - before - torch.cuda.memory_reserved(device)
    return taken if taken is not None and taken > 0 else None


def measure(device: torch.device, owners: Sequence[MemoryOwner], runtime_bytes: int | None = None) -> MemoryMeasure:
    """How the device's memory is used, and by whom: one owner a byte.

    `runtime_bytes`: what `start` told; taken where the driver does not count by process. Where neither can be told, held
    and live bytes lack the runtime. Of a device without an allocator of its own (a CPU) only the owners' sum is known.
    """
    if device.type != "cuda":
        live = sum(owner.live_bytes for owner in owners)
        return MemoryMeasure(time_s=time.time(), live_bytes=live, owners=tuple(owners))
    counts = torch.cuda.memory_stats(device)
    allocated, reserved = torch.cuda.memory_allocated(device), torch.cuda.memory_reserved(device)
    free, total = torch.cuda.mem_get_info(device)
    by_process = process_bytes(device)
    runtime = by_process - reserved if by_process is not None and by_process > reserved else runtime_bytes
    blocks = _free_blocks(device)
    return MemoryMeasure(
        time_s=time.time(),
        total_bytes=total,
        used_bytes=total - free,
        held_bytes=reserved + (runtime or 0),
        live_bytes=allocated + (runtime or 0),
        cached_bytes=reserved - allocated,
        largest_free_block_bytes=max(blocks, default=0),
        fragmentation_ratio=1 - max(blocks) / sum(blocks) if blocks else None,
        allocation_count=int(counts.get("allocation.all.allocated", 0)),
        allocation_failure_count=int(counts.get("num_ooms", 0)),
        owners=attributed(owners, allocated, runtime),
    )


def attributed(owners: Sequence[MemoryOwner], allocated: int, runtime: int | None) -> tuple[MemoryOwner, ...]:
    """The owners so that they add up to `allocated` and `runtime`: what is shared counts for the first of them.

    The rest is UNATTRIBUTED. Owners that claim more than there is are cut, the last ones first.
    """
    shares: list[MemoryOwner] = []
    left = allocated
    for owner in owners:
        if owner.kind not in _OURS_TO_SAY:
            own = min(owner.live_bytes, left)
            left -= own
            shares.append(msgspec.structs.replace(owner, live_bytes=own))
    if runtime:
        shares.append(MemoryOwner(kind=OwnerKind.RUNTIME, live_bytes=runtime))
    if left:
        shares.append(MemoryOwner(kind=OwnerKind.UNATTRIBUTED, live_bytes=left))
    return tuple(shares)


def empty_caches(device: torch.device) -> int | None:
    """Give back what is kept for the next use. Returns the bytes that this freed; None: it cannot be measured."""
    if device.type == "cuda":
        before = torch.cuda.memory_reserved(device)
        torch.cuda.synchronize(device)
        torch.cuda.empty_cache()
        return before - torch.cuda.memory_reserved(device)
    if device.type != "cpu":
        return None
    process = psutil.Process()
    before = process.memory_info().rss
    return max(before - process.memory_info().rss, 0) if trim_heap() else None


def compact(device: torch.device) -> int | None:
    """Free what nobody can reach any more, then the caches, so that the pieces left over do not lie between what is in use.

    Nothing that is in use moves: where it stands in many places, its owner must leave and come back. Between two jobs.
    Returns as `empty_caches`.
    """
    # Unreachable tensors go into the cache, and out with it.
    gc.collect()
    return empty_caches(device)


def _free_blocks(device: torch.device) -> list[int]:
    """Sizes of the pieces that the allocator can hand out. Those of a graph's own pool serve that graph alone."""
    segments = cast(Sequence[Mapping[str, Any]], torch.cuda.memory_snapshot())
    index = torch.device(device).index if str(device) != device.type else torch.cuda.current_device()
    return [
        int(block["size"])
        for segment in segments
        if segment["device"] == index and tuple(segment.get("segment_pool_id", (0, 0))) == (0, 0)
        for block in segment["blocks"]
        if block["state"] == "inactive"
    ]
