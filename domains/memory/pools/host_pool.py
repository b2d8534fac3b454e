"""The source of the pool `host`: memory held by this process and its workers, and used by all processes."""

import asyncio
import os
import time
from collections.abc import Callable, Iterable, Sequence

import msgspec
import psutil

from domains.device.cgroup import host_memory
from domains.memory.measure import MemoryMeasure, MemoryOwner, OwnerKind
from domains.memory.pools.pool import HOST, PoolKind

Owners = Callable[[], Sequence[MemoryOwner]]


def _none() -> Sequence[int]:
    return ()


def _no_owners() -> Sequence[MemoryOwner]:
    return ()


class HostPool:
    """The pool `host`. In a container the total is the limit of the control group."""

    pool_id = HOST
    kind = PoolKind.HOST
    device_id = ""

    def __init__(
        self,
        worker_pids: Callable[[], Sequence[int]] = _none,
        owners: Owners = _no_owners,
        pinned_bytes: Callable[[], int | None] = lambda: None,
        aliases: tuple[str, ...] = ("cpu",),
    ) -> None:
        """`owners`: models, jobs, blobs and caches in host memory. `pinned_bytes`: page-locked bytes; None: unknown."""
        self._worker_pids = worker_pids
        self._owners = owners
        self._pinned_bytes = pinned_bytes
        self.aliases = aliases

    async def measure(self) -> MemoryMeasure:
        """Measure now. Pages that several of the processes share count for each of them."""
        pids = {os.getpid(), *self._worker_pids()}
        # Off the event loop: the query of each process takes a fraction of a millisecond.
        machine, held = await asyncio.to_thread(lambda: (host_memory(), _held(pids)))
        return MemoryMeasure(
            time_s=time.time(),
            total_bytes=machine.total_bytes,
            used_bytes=machine.used_bytes,
            held_bytes=held,
            live_bytes=held,
            pinned_bytes=self._pinned_bytes(),
            owners=tuple(self._owners()) if held is None else attributed(self._owners(), held),
        )


def _held(pids: Iterable[int]) -> int | None:
    """The resident sets of processes together. None: the system cannot tell, for instance without a free descriptor."""
    try:
        return sum(map(_resident, pids))
    except OSError:
        return None


def _resident(pid: int) -> int:
    """The resident set of a process; 0 if it has ended."""
    try:
        return psutil.Process(pid).memory_info().rss
    except psutil.Error:
        return 0


def attributed(owners: Sequence[MemoryOwner], live_bytes: int) -> tuple[MemoryOwner, ...]:
    """The owners, and the runtime for the rest, so that they add up to the live bytes. Largest first.

    If the owners add up to more than is resident (untouched or swapped pages), each is scaled by the same factor.
    """
    told = sum(owner.live_bytes for owner in owners)
    if told > live_bytes:
        owners = [msgspec.structs.replace(owner, live_bytes=owner.live_bytes * live_bytes // told) for owner in owners]
        told = sum(owner.live_bytes for owner in owners)
    runtime = MemoryOwner(kind=OwnerKind.RUNTIME, live_bytes=live_bytes - told)
    whole = [*owners, runtime] if runtime.live_bytes else owners
    return tuple(sorted(whole, key=lambda owner: -owner.live_bytes))
