"""Measuring torch's allocator and emptying its caches.

runtime = start(device)                                    # before anything else uses the device
measure(device, owners, runtime)                           → MemoryMeasure
empty_caches(device), compact(device)                      → freed bytes, measured
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
    """The memory of the runtime before a model or blob is on the device."""

    context_bytes: int | None = None
    """Outside the allocator: the context and the loaded kernels. None: the context existed already, or the driver does not
    report it."""
    workspace_bytes: int = 0
    """From the allocator: workspaces that libraries keep for their kernels until the process ends."""


def start(name: str) -> Runtime:
    """Initialize the runtime and its libraries. Returns the memory that this took.

    `name`: the torch name of the device. The figure is exact if no other process allocates or frees at the same time.
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
    """Let each library compute once on the worker's stream. Returns the bytes that stay allocated.

    cuBLAS allocates a workspace (32 MiB on Hopper) from torch's allocator at its first product and keeps it.
    cuDNN loads its kernels at the same time on a second thread. When that thread ends, torch gives its handle to this one.
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
    """The use of the device's memory by owner. Each byte has one owner.

    `runtime`: the result of `start`; its context counts if the driver does not count by process. If neither is known, held
    and live bytes lack the context. `peak_bytes`: the allocator's high-water mark before its last reset. For a device
    without an allocator of its own (a CPU) only the sum of the owners is known.
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
    """The owners, adding up to `allocated` and `context`. Shared bytes count for the first owner.

    RUNTIME has the context and the workspace. The rest of `allocated` is UNATTRIBUTED. Owners that add up to more than
    `allocated` are cut, last ones first.
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
    """Empty the caches. Returns the freed bytes. None: they cannot be measured."""
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
    """Collect unreachable tensors, then empty the caches, which reduces fragmentation. Runs between two jobs.

    Memory in use does not move: only unloading and loading its owner moves it. Returns as `empty_caches`.
    """
    # The memory of collected tensors goes into the cache.
    gc.collect()
    return empty_caches(device)


def _free_blocks(device: torch.device) -> list[int]:
    """Sizes of the blocks that the allocator can hand out. Blocks of a CUDA graph's private pool are left out."""
    segments = cast(Sequence[Mapping[str, Any]], torch.cuda.memory_snapshot())
    index = torch.device(device).index if str(device) != device.type else torch.cuda.current_device()
    return [
        int(block["size"])
        for segment in segments
        if segment["device"] == index and tuple(segment.get("segment_pool_id", (0, 0))) == (0, 0)
        for block in segment["blocks"]
        if block["state"] == "inactive"
    ]
