"""Detects devices that appear, vanish and return, and starts and ends their workers."""

import asyncio
import time
from collections.abc import Mapping, Sequence
from typing import Protocol

import structlog

from domains.device.device import Backend, Device, DeviceState
from domains.device.devices import Devices
from domains.device.refresh import BackendFailure, Refreshed
from domains.errors import DeviceOpsError, ErrorReason, InternalError
from domains.failure import Failure
from domains.processing.devices.inventory_watch import Found, Inventory, InventoryWatch
from domains.processing.lanes.lanes import Lanes
from domains.processing.workers.ask import ask
from domains.processing.workers.worker import Described, ProbeOrder, new_order_id

LOOK_S = 5.0
"""Interval between two looks, and time limit of one."""

_log = structlog.get_logger()


class Workers(Protocol):
    """Worker processes. `server.worker.fleet` implements it."""

    def start(self, name: str, device: Device | None) -> None:
        """Start a worker for a new or returned device; `device` None: only the worker can identify it."""
        ...

    def suspend(self, device_id: str) -> None:
        """End a device's worker, and do not start it again."""
        ...


class HotPlug:
    """Looks at all inventories, and compares with the known devices."""

    def __init__(self, inventories: Sequence[Inventory], devices: Devices, workers: Workers, lanes: Lanes) -> None:
        self._watches = [InventoryWatch(inventory, self._note) for inventory in inventories]
        self._devices = devices
        self._workers = workers
        self._lanes = lanes
        self._probing: asyncio.Task[tuple[str, ...]] | None = None
        """Probes all devices, for all callers that asked meanwhile."""

    async def keep_looking(self, every_s: float) -> None:
        """Look at an interval until cancelled."""
        while True:
            await asyncio.sleep(every_s)
            try:
                await self.look(timeout_s=every_s)
            except Exception:
                # A bug of the server ends this look only; the next one follows.
                _log.exception("a bug ended a look for devices")

    async def look(self, timeout_s: float, *, probe_again: bool = False) -> Refreshed:
        """Look at all backends, beginning after the call; `probe_again` then probes every device."""
        begin = time.monotonic()
        said = await asyncio.gather(*(self._look_at(watch, timeout_s) for watch in self._watches))
        found = [one for one in said if isinstance(one, Found)]
        changed = await self._probe_again(timeout_s) if probe_again else ()
        return Refreshed(
            added=tuple(device_id for one in found for device_id in one.added),
            changed=changed,
            lost=tuple(device_id for one in found for device_id in one.lost),
            returned=tuple(device_id for one in found for device_id in one.returned),
            failures=tuple(one for one in said if isinstance(one, BackendFailure)),
            duration_s=time.monotonic() - begin,
        )

    async def _look_at(self, watch: InventoryWatch, timeout_s: float) -> Found | BackendFailure:
        try:
            return await watch.look(timeout_s)
        except TimeoutError:
            message = f"{watch.backend} did not answer within {timeout_s:g} s"
            return _failure(watch.backend, InternalError(message, ErrorReason.DRIVER_ERROR))
        except DeviceOpsError as error:
            return _failure(watch.backend, error)

    async def _probe_again(self, timeout_s: float) -> tuple[str, ...]:
        if self._probing is None or self._probing.done():
            self._probing = asyncio.create_task(self._probe_all(timeout_s))
        return await asyncio.shield(self._probing)

    def _note(self, backend: Backend, there: Mapping[str, Device]) -> Found:
        lost = self._note_lost(backend, frozenset(one.id for one in there.values()))
        added: list[str] = []
        returned: list[str] = []
        for name, device in there.items():
            self._note_present(name, device, added, returned)
        return Found(added=tuple(added), lost=tuple(lost), returned=tuple(returned))

    def _note_lost(self, backend: Backend, there: frozenset[str]) -> list[str]:
        gone = [
            view.device.id
            for view in self._devices.list()
            if view.device.backend is backend and view.state is not DeviceState.LOST and view.device.id not in there
        ]
        for device_id in gone:
            _log.warning("device lost", device=device_id)
            # The state first: it is the cause of the jobs that end with the worker.
            self._devices.lost(device_id, f"{backend} lists it no more")
            self._workers.suspend(device_id)
        return gone

    def _note_present(self, name: str, device: Device, added: list[str], returned: list[str]) -> None:
        device_id = device.id
        view = self._devices.find(device_id)
        if view is not None and view.state is DeviceState.LOST:
            _log.info("device returned", device=device_id)
            self._devices.returned(device_id)
            self._workers.start(name, device)
            returned.append(device_id)
        elif view is None:
            _log.info("device appeared", device=device_id)
            self._workers.start(name, device)
            added.append(device_id)

    async def _probe_all(self, timeout_s: float) -> tuple[str, ...]:
        """Have every worker probe its device again, between two jobs; returns ids of devices that differ."""
        changed: list[str] = []
        for view in self._devices.list():
            device_id = view.device.id
            lane = self._lanes.of(device_id)
            if lane is None:
                continue
            try:
                async with asyncio.timeout(timeout_s), self._lanes.turn(lane, alone=False) as worker:
                    found = await ask(worker, ProbeOrder(order_id=new_order_id("probe")), Described)
            except (TimeoutError, DeviceOpsError) as error:
                _log.warning("device could not be probed again", device=device_id, problem=str(error))
                continue
            after = self._devices.described(view.name, found.device, view.reach, ready=True)
            if after.etag != view.etag:
                changed.append(device_id)
        return tuple(changed)


def _failure(backend: Backend, error: DeviceOpsError) -> BackendFailure:
    return BackendFailure(backend=backend, failure=Failure.of(error), time_s=time.time())
