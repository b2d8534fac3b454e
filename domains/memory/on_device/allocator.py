"""What the allocator holds, and making it give back.

runtime = start(device)                                    # first of all, before anything else uses the device
measure(device, owners, runtime)                           → MemoryMeasure
empty_caches(device), compact(device)                      → bytes that they gave back, measured
"""

import gc
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, cast

import msgspec
import psutil
import torch

from domains.memory.measure import MemoryMeasure, MemoryOwner, OwnerKind
from domains.memory.on_device.driver import device_used_bytes, process_bytes, trim_heap

_OURS_TO_SAY = (OwnerKind.RUNTIME, OwnerKind.UNATTRIBUTED)


class Runtime(msgspec.Struct, frozen=True, kw_only=True):
    """What the runtime takes before anybody has anything on the device."""

    context_bytes: int | None = None
    """Beside the allocator: the context and the loaded kernels. None: it was up already, or the driver does not tell."""
    workspace_bytes: int = 0
    """From the allocator: what libraries keep for their kernels until the process ends."""


def start(name: str) -> Runtime:
    """Bring the runtime and its libraries up, and tell what that took.

    `name`: as torch calls it. Exact if no other process takes or gives back memory at the same time.
    """
    device = torch.device(name)
    if device.type != "cuda" or torch.cuda.is_initialized():
        return Runtime()
    before = device_used_bytes(device)
    workspace = _warm_up(device)
    after = device_used_bytes(device)
    taken = None if before is None or after is None else after - before - torch.cuda.memory_reserved(device)
    return Runtime(context_bytes=taken if taken is not None and taken > 0 else None, workspace_bytes=workspace)


def _warm_up(device: torch.device) -> int:
    """Let each library compute once on the stream that the worker uses. What is then still allocated is not ours.

    cuBLAS takes a workspace (32 MiB on Hopper) from torch's allocator with its first product, and keeps it. cuDNN loads its
    kernels beside it, on a thread whose handle goes back to torch, and from there to this one.
    """
    torch.cuda.init()
    with ThreadPoolExecutor(1) as beside:
        convolved = beside.submit(_in_each_precision, _convolve, device)
        _in_each_precision(_multiply, device)
        convolved.result()
    torch.cuda.synchronize(device)
    return torch.cuda.memory_allocated(device)


def _in_each_precision(compute: Callable[[torch.device, torch.dtype], None], device: torch.device) -> None:
    with torch.inference_mode():
        for dtype in (torch.float32, torch.float16):
            compute(device, dtype)


def _multiply(device: torch.device, dtype: torch.dtype) -> None:
    square = torch.zeros((64, 64), dtype=dtype, device=device)
    torch.addmm(square[0], square, square)
    torch.bmm(square[None], square[None])


def _convolve(device: torch.device, dtype: torch.dtype) -> None:
    image = torch.zeros((1, 8, 16, 16), dtype=dtype, device=device)
    torch.nn.functional.conv2d(image, torch.zeros((8, 8, 3, 3), dtype=dtype, device=device))


def measure(
    device: torch.device, owners: Sequence[MemoryOwner], runtime: Runtime | None = None, peak_bytes: int = 0
) -> MemoryMeasure:
    """How the device's memory is used, and by whom: one owner a byte.

    `runtime`: what `start` told; its context is taken where the driver does not count by process. Where neither can be
    told, held and live bytes lack the context. `peak_bytes`: the allocator's high-water mark before its newest reset.
    Of a device without an allocator of its own (a CPU) only the owners' sum is known.
    """
    runtime = runtime or Runtime()
    if device.type != "cuda":
        live = sum(owner.live_bytes for owner in owners)
        return MemoryMeasure(time_s=time.time(), live_bytes=live, owners=tuple(owners))
    counts = torch.cuda.memory_stats(device)
    allocated, reserved = torch.cuda.memory_allocated(device), torch.cuda.memory_reserved(device)
    free, total = torch.cuda.mem_get_info(device)
    by_process = process_bytes(device)
    context = by_process - reserved if by_process is not None and by_process > reserved else runtime.context_bytes
    blocks = _free_blocks(device)
    return MemoryMeasure(
        time_s=time.time(),
        total_bytes=total,
        used_bytes=total - free,
        held_bytes=reserved + (context or 0),
        live_bytes=allocated + (context or 0),
        peak_live_bytes=max(peak_bytes, torch.cuda.max_memory_allocated(device)) + (context or 0),
        cached_bytes=reserved - allocated,
        largest_free_block_bytes=max(blocks, default=0),
        fragmentation_ratio=1 - max(blocks) / sum(blocks) if blocks else None,
        allocation_count=int(counts.get("allocation.all.allocated", 0)),
        allocation_failure_count=int(counts.get("num_ooms", 0)),
        owners=attributed(owners, allocated, context, runtime.workspace_bytes),
    )


def attributed(
    owners: Sequence[MemoryOwner], allocated: int, context: int | None, workspace: int = 0
) -> tuple[MemoryOwner, ...]:
    """The owners so that they add up to `allocated` and `context`: what is shared counts for the first of them.

    RUNTIME has the context and, of what is allocated, the workspace. The rest is UNATTRIBUTED. Owners that claim more
    than there is are cut, the last ones first.
    """
    shares: list[MemoryOwner] = []
    left = allocated
    for owner in owners:
        if owner.kind not in _OURS_TO_SAY:
            own = min(owner.live_bytes, left)
            left -= own
            shares.append(msgspec.structs.replace(owner, live_bytes=own))
    kept = min(workspace, left)
    left -= kept
    if runtime := (context or 0) + kept:
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
