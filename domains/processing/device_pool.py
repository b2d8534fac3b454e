"""The memory of devices and of the host as the workers tell it, with owners in the words of the whole server."""

import asyncio
import time
from collections.abc import Callable, Sequence

import msgspec

from domains.device.devices import Devices
from domains.device.record import DeviceView
from domains.errors import DeviceOpsError
from domains.memory.measure import MemoryMeasure, MemoryOwner, OwnerKind
from domains.memory.pools.pool import PoolKind
from domains.model.loaded import LoadedModels
from domains.processing.ask import ask
from domains.processing.device_statuses import DeviceStatuses
from domains.processing.worker import Measured, MeasureOrder, Worker, order_id

ANSWER_S = 2.0
"""How long a worker may take; one that is in a long step or hangs is measured from outside."""


class WorkerMemory:
    """What each worker said last of its memory."""

    def __init__(
        self,
        loaded: LoadedModels,
        worker_of: Callable[[str], Worker | None],
        on_measured: Callable[[str, MemoryMeasure | None], None],
    ) -> None:
        """`on_measured`: called with a device (id) and its worker's measurement; None: the worker has ended."""
        self._loaded = loaded
        self._worker_of = worker_of
        self._on_measured = on_measured
        self._last: dict[str, MemoryMeasure] = {}

    async def now(self, device_id: str) -> MemoryMeasure | None:
        """Asked now; None: no worker answers in time."""
        try:
            async with asyncio.timeout(ANSWER_S):
                return await self._ask(device_id)
        except TimeoutError:
            return None

    def last(self, device_id: str) -> MemoryMeasure | None:
        """What it said last; None: nothing, or its worker has ended."""
        return self._last.get(device_id)

    def forget(self, device_id: str) -> None:
        """Its worker has ended."""
        self._last.pop(device_id, None)
        self._on_measured(device_id, None)

    async def _ask(self, device_id: str) -> MemoryMeasure | None:
        worker = self._worker_of(device_id)
        if worker is None:
            return None
        try:
            said = (await ask(worker, MeasureOrder(job_id=order_id("measure")), Measured)).measure
        except DeviceOpsError:
            return None
        owners = tuple(self._in_our_words(owner, device_id) for owner in said.owners)
        self._last[device_id] = msgspec.structs.replace(said, owners=owners)
        self._on_measured(device_id, self._last[device_id])
        return self._last[device_id]

    def _in_our_words(self, owner: MemoryOwner, device_id: str) -> MemoryOwner:
        """A worker knows models; the server knows which of them are pinned."""
        if owner.kind is OwnerKind.CACHE:
            return msgspec.structs.replace(owner, reclaimable=True)
        if owner.kind is not OwnerKind.LOADED_MODEL:
            return owner
        loaded_id = f"{owner.id}@{device_id}"
        known = next((one for one in self._loaded.list() if one.id == loaded_id), None)
        return msgspec.structs.replace(owner, id=loaded_id, reclaimable=known is not None and not known.pinned)


class DevicePool:
    """The source of a device's pool: `domains.memory.pools.pool.PoolSource`."""

    kind = PoolKind.DEVICE

    def __init__(self, device_id: str, devices: Devices, statuses: DeviceStatuses, memory: WorkerMemory) -> None:
        self.pool_id = self.device_id = device_id
        self._devices = devices
        self._statuses = statuses
        self._memory = memory

    @property
    def aliases(self) -> tuple[str, ...]:
        """Those of the device."""
        return self._view.device.aliases

    @property
    def _view(self) -> DeviceView:
        return self._devices.get(self.device_id)

    async def measure(self) -> MemoryMeasure:
        """What the worker tells, its figures of one moment; one that is busy or hangs is measured from outside.

        Raises DEVICE_LOST: what a worker that is about to end may still tell is of memory that is gone.
        """
        self._devices.there(self.device_id)
        measure = await self._memory.now(self.device_id) or MemoryMeasure(time_s=time.time())
        if measure.total_bytes is not None and measure.used_bytes is not None:
            # Not mixed with a sample of another moment: what is held would not be part of what is used.
            return measure
        sample = await self._statuses.sample(self._view)
        total = measure.total_bytes or sample.total_memory_bytes or self._view.device.total_memory_bytes
        used = sample.used_memory_bytes if measure.used_bytes is None else measure.used_bytes
        return msgspec.structs.replace(measure, total_bytes=total, used_bytes=used)


class HostOwners:
    """Who holds host memory: the CPU worker's models and jobs as told last, and the store's blobs."""

    def __init__(self, memory: WorkerMemory, blobs: Callable[[], Sequence[MemoryOwner]]) -> None:
        self._memory = memory
        self._blobs = blobs

    def owners(self) -> list[MemoryOwner]:
        """As known now."""
        said = self._memory.last("cpu")
        return [*(said.owners if said else ()), *self._blobs()]

    async def keep_asking(self, every_s: float) -> None:
        """A CPU worker answers between two steps only: it is asked beside the calls, not by them."""
        while True:
            await self._memory.now("cpu")
            await asyncio.sleep(every_s)
