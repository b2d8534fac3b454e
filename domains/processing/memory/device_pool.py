"""The memory of devices and host as measured by the workers, with the owners' ids as the server knows them."""

import asyncio
import time
from collections.abc import Callable, Sequence

import msgspec

from domains.device.devices import Devices
from domains.device.record import DeviceView
from domains.errors import DeviceOpsError
from domains.memory.measure import MemoryMeasure, MemoryOwner, OwnerKind
from domains.memory.pools.pool import PoolKind
from domains.model.loaded_models import LoadedModels
from domains.processing.devices.statuses import DeviceStatuses
from domains.processing.memory.last_measures import LastMeasures
from domains.processing.workers.ask import ask
from domains.processing.workers.worker import Measured, MeasureOrder, Worker, new_order_id

ANSWER_S = 2.0
"""The longest wait for a worker. A worker that is in a long step or hangs is measured by the driver instead."""


class WorkerMemory:
    """The last measurement of each worker."""

    def __init__(
        self,
        loaded: LoadedModels,
        worker_of: Callable[[str], Worker | None],
        on_measured: Callable[[str, MemoryMeasure | None], None],
        session_of: Callable[[str], str],
        last: LastMeasures,
    ) -> None:
        """`on_measured`: called with a device (id) and its worker's measurement; None: the worker has ended. `session_of`:
        the session of a job (id). `last`: filled by this object alone."""
        self._loaded = loaded
        self._worker_of = worker_of
        self._on_measured = on_measured
        self._session_of = session_of
        self._last = last.by_device

    async def now(self, device_id: str) -> MemoryMeasure | None:
        """Measure now. None: no worker answers in time."""
        try:
            async with asyncio.timeout(ANSWER_S):
                return await self._ask(device_id)
        except TimeoutError:
            return None

    def last(self, device_id: str) -> MemoryMeasure | None:
        """The last measurement. None: there is none, or the worker has ended."""
        return self._last.get(device_id)

    def on_host(self) -> list[MemoryOwner]:
        """What the workers of all devices hold in host memory, as last measured."""
        return [owner for measure in self._last.values() for owner in measure.host_owners]

    def forget(self, device_id: str) -> None:
        """Drop the measurement of a worker that has ended."""
        self._last.pop(device_id, None)
        self._on_measured(device_id, None)

    async def _ask(self, device_id: str) -> MemoryMeasure | None:
        worker = self._worker_of(device_id)
        if worker is None:
            return None
        try:
            measure = (await ask(worker, MeasureOrder(order_id=new_order_id("measure")), Measured)).measure
        except DeviceOpsError:
            return None
        owners = tuple(self._known(owner, device_id) for owner in measure.owners)
        host_owners = tuple(
            msgspec.structs.replace(self._known(owner, device_id), id=f"{owner.id}@{device_id}")
            for owner in measure.host_owners
        )
        self._last[device_id] = msgspec.structs.replace(measure, owners=owners, host_owners=host_owners)
        self._on_measured(device_id, self._last[device_id])
        return self._last[device_id]

    def _known(self, owner: MemoryOwner, device_id: str) -> MemoryOwner:
        """The owner with its session, and a loaded model's id and pinning, which the worker does not know."""
        if owner.kind is OwnerKind.JOB:
            return msgspec.structs.replace(owner, session_id=self._session_of(owner.id))
        if owner.kind is OwnerKind.CACHE:
            return msgspec.structs.replace(owner, reclaimable=True)
        if owner.kind is not OwnerKind.LOADED_MODEL:
            return owner
        loaded_id = f"{owner.id}@{device_id}"
        known = next((one for one in self._loaded.list() if one.id == loaded_id), None)
        return msgspec.structs.replace(
            owner,
            id=loaded_id,
            session_id="" if known is None else known.session_id,
            reclaimable=known is not None and not known.stays(time.time()),
        )


class DevicePool:
    """The `PoolSource` of a device's pool."""

    kind = PoolKind.DEVICE

    def __init__(self, device_id: str, devices: Devices, statuses: DeviceStatuses, memory: WorkerMemory) -> None:
        self.pool_id = self.device_id = device_id
        self._devices = devices
        self._statuses = statuses
        self._memory = memory

    @property
    def aliases(self) -> tuple[str, ...]:
        """The aliases of the device."""
        return self._view.device.aliases

    @property
    def _view(self) -> DeviceView:
        return self._devices.get(self.device_id)

    async def measure(self) -> MemoryMeasure:
        """The worker's measurement. The driver measures the device of a worker that is busy or hangs.

        DEVICE_LOST for a lost device, whose worker may still answer about memory that is gone.
        """
        self._devices.there(self.device_id)
        measure = await self._memory.now(self.device_id) or MemoryMeasure(time_s=time.time())
        if measure.total_bytes is not None and measure.used_bytes is not None:
            # A driver sample of another moment could show fewer used bytes than the worker holds.
            return measure
        sample = await self._statuses.sample(self._view)
        total = measure.total_bytes or sample.total_memory_bytes or self._view.device.total_memory_bytes
        used = sample.used_memory_bytes if measure.used_bytes is None else measure.used_bytes
        return msgspec.structs.replace(measure, total_bytes=total, used_bytes=used)


class HostOwners:
    """The owners of host memory: models and jobs of the CPU worker and adapters of every worker as last measured,
    blobs, and the RAM tier."""

    def __init__(self, memory: WorkerMemory, others: Callable[[], Sequence[MemoryOwner]]) -> None:
        """`others`: the owners besides the worker."""
        self._memory = memory
        self._others = others

    def owners(self) -> list[MemoryOwner]:
        """The owners as last measured."""
        measure = self._memory.last("cpu")
        return [*(measure.owners if measure else ()), *self._memory.on_host(), *self._others()]

    async def keep_asking(self, every_s: float) -> None:
        """Measure the CPU worker periodically: it answers only between two steps, too late for a call."""
        while True:
            await self._memory.now("cpu")
            await asyncio.sleep(every_s)
