"""Notices devices that appear, vanish and come back, and starts and stops their workers."""

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
from domains.processing.ask import ask
from domains.processing.dispatch import Dispatcher
from domains.processing.worker import Described, ProbeOrder, order_id

_log = structlog.get_logger()


class Inventory(Protocol):
    """What one backend lists, without the help of a worker."""

    @property
    def backend(self) -> Backend:
        """Whose devices."""
        ...

    async def look(self) -> Mapping[str, Device]:
        """Devices by the names that workers are started with, as far as they are known without one. Raises DRIVER_ERROR."""
        ...


class Workers(Protocol):
    """The worker processes. `server.worker.fleet` is the real one."""

    def start(self, name: str, device: Device | None) -> None:
        """Start a worker for a new device, or again for one that came back; None: only the worker will know it."""
        ...

    def suspend(self, device_id: str) -> None:
        """End a device's worker, and start it no more."""
        ...


class HotPlug:
    """Looks, and compares with what was known."""

    def __init__(
        self, inventories: Sequence[Inventory], devices: Devices, workers: Workers, dispatcher: Dispatcher
    ) -> None:
        self._inventories = inventories
        self._devices = devices
        self._workers = workers
        self._dispatcher = dispatcher
        self._looking: asyncio.Task[Refreshed] | None = None
        self._probing = False
        """Whether that look also tries what each device can do."""

    async def keep_looking(self, every_s: float) -> None:
        """By itself, now and then."""
        while True:
            await asyncio.sleep(every_s)
            await self.look(timeout_s=every_s)

    async def look(self, timeout_s: float, *, probe_again: bool = False) -> Refreshed:
        """One look at all backends. Calls at the same time share one, unless it does not try what this one wants tried."""
        while self._looking is not None and not self._looking.done() and probe_again and not self._probing:
            await asyncio.wait([self._looking])
        if self._looking is None or self._looking.done():
            self._probing = probe_again
            self._looking = asyncio.create_task(self._look(timeout_s, probe_again))
        return await asyncio.shield(self._looking)

    async def _look(self, timeout_s: float, probe_again: bool) -> Refreshed:
        begin = time.monotonic()
        added: list[str] = []
        lost: list[str] = []
        returned: list[str] = []
        failures: list[BackendFailure] = []
        for inventory in self._inventories:
            try:
                async with asyncio.timeout(timeout_s):
                    there = await inventory.look()
            except TimeoutError:
                error = InternalError(
                    f"{inventory.backend} did not answer within {timeout_s:g} s", ErrorReason.DRIVER_ERROR
                )
                failures.append(_failure(inventory.backend, error))
            except DeviceOpsError as error:
                failures.append(_failure(inventory.backend, error))
            else:
                lost += self._note_lost(inventory.backend, frozenset(one.id for one in there.values()))
                for name, device in there.items():
                    self._note_present(name, device, added, returned)
        changed = await self._probe_all(timeout_s) if probe_again else ()
        return Refreshed(
            added=tuple(added),
            changed=changed,
            lost=tuple(lost),
            returned=tuple(returned),
            failures=tuple(failures),
            duration_s=time.monotonic() - begin,
        )

    def _note_lost(self, backend: Backend, there: frozenset[str]) -> list[str]:
        gone = [
            view.device.id
            for view in self._devices.list()
            if view.device.backend is backend and view.state is not DeviceState.LOST and view.device.id not in there
        ]
        for device_id in gone:
            _log.warning("device lost", device=device_id)
            # The state first: whatever breaks off now is told with this as its cause.
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
        """Let every worker try out again what its device can do, between two jobs; ids of those that differ."""
        changed: list[str] = []
        for view in self._devices.list():
            device_id = view.device.id
            lane = self._dispatcher.lanes.of(device_id)
            if lane is None:
                continue
            try:
                async with asyncio.timeout(timeout_s), self._dispatcher.lanes.turn(lane, alone=False) as worker:
                    found = await ask(worker, ProbeOrder(job_id=order_id("probe")), Described)
            except (TimeoutError, DeviceOpsError) as error:
                _log.warning("device could not be probed again", device=device_id, problem=str(error))
                continue
            after = self._devices.described(view.name, found.device, view.reach, ready=True)
            if after.etag != view.etag:
                changed.append(device_id)
        return tuple(changed)


def _failure(backend: Backend, error: DeviceOpsError) -> BackendFailure:
    return BackendFailure(backend=backend, failure=Failure.of(error), time_s=time.time())
