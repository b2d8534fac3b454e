"""The workers of all devices, and what the rest of the server learns from them."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Coroutine, Iterable

from domains.device.device import Device
from domains.device.devices import Devices
from domains.device.record import DeviceReach
from domains.device.telemetry import ALWAYS
from domains.errors import DeviceOpsError
from domains.model.loaded import LoadedModels
from domains.processing.board import Board as Dispatcher
from domains.processing.lane import Lane
from server.worker.keeper import WorkerKeeper
from server.worker.life import Launcher
from server.worker.link import WorkerLink


class Fleet:
    """Starts keepers, and carries their news to the devices, the dispatcher and the books."""

    def __init__(
        self,
        devices: Devices,
        dispatcher: Dispatcher,
        loaded: LoadedModels,
        reach: Callable[[Device], Awaitable[DeviceReach]],
        prepare: Callable[[str, WorkerLink], Awaitable[None]],
        jobs_per_device: int,
        launcher: Launcher,
    ) -> None:
        """`reach`: what can be measured and chosen on a device; `prepare`: what a worker is told first, by its name."""
        self.keepers: list[WorkerKeeper] = []
        self.on_change: Callable[[], None] = lambda: None
        """Called when a worker becomes ready or is lost."""
        self.on_fault: Callable[[str, int], None] = lambda device_id, index: None
        """Called when a simulated device tells that a scripted fault takes effect."""
        self.look_again: Callable[[], None] = lambda: None
        """Called when devices came or went."""
        self.on_gone: list[Callable[[str], None]] = []
        """Called with the id of a device whose worker has ended: all that it held is gone."""
        self._devices = devices
        self._dispatcher = dispatcher
        self._loaded = loaded
        self._reach = reach
        self._prepare = prepare
        self._jobs_per_device = jobs_per_device
        self._launcher = launcher
        self._tasks: set[asyncio.Task[None]] = set()

    def start(self, name: str, device: Device | None) -> None:
        """Start a worker for a new device, or again for one that came back.

        What is known of the device without a worker is told at once: it is there, and STARTING.
        """
        if device is not None and self._devices.find(device.id) is None:
            reach = DeviceReach(controls=ALWAYS, capacity=self._jobs_per_device)
            self._devices.described(name, device, reach, ready=False)
        for keeper in self.keepers:
            if keeper.name == name or (device is not None and keeper.device_id == device.id):
                keeper.resume()
                return
        keeper = WorkerKeeper(name, self, self._capacity, self._launcher)
        keeper.device_id = device.id if device is not None else ""
        keeper.on_change = lambda: self.on_change()
        self.keepers.append(keeper)
        self.spawn(keeper.keep())

    def suspend(self, device_id: str) -> None:
        """End a device's worker, and start it no more."""
        for keeper in self._of(device_id):
            keeper.suspend()

    def restart(self, device_id: str, why: str) -> None:
        """End a device's worker process, ready or not, and start the next at once."""
        for keeper in self._of(device_id):
            keeper.end(why)

    def worker_of(self, device_id: str) -> WorkerLink | None:
        """The device's worker, if it is ready."""
        return next((keeper.link for keeper in self._of(device_id) if keeper.link), None)

    def keeper_of(self, device_id: str) -> WorkerKeeper | None:
        """Who keeps the device's worker; None: nobody."""
        return next(iter(self._of(device_id)), None)

    def links_of(self, device_id: str) -> list[WorkerLink]:
        """The front's ends of the device's worker, ready or not: one or none."""
        return [keeper.talking for keeper in self._of(device_id) if keeper.talking]

    def uptime(self, device_id: str) -> tuple[float | None, int]:
        """Seconds since the device's worker was ready (None: none runs), and how often it was started again."""
        keeper = self.keeper_of(device_id)
        if keeper is None:
            return None, 0
        return (None if keeper.ready_s is None else time.monotonic() - keeper.ready_s), keeper.restarts

    def spawn(self, work: Coroutine[None, None, None]) -> None:
        """Run something beside the calls; it ends with the fleet."""
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def pids(self) -> list[int]:
        """Of all worker processes."""
        return [keeper.pid for keeper in self.keepers if keeper.pid]

    async def close(self) -> None:
        """End all workers."""
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _of(self, device_id: str) -> Iterable[WorkerKeeper]:
        return (keeper for keeper in self.keepers if device_id in (keeper.device_id, keeper.name))

    def _capacity(self, device_id: str) -> int:
        view = self._devices.find(device_id)
        return (view.settings.max_concurrent_jobs if view else None) or self._jobs_per_device

    async def prepare(self, name: str, link: WorkerLink) -> None:
        """Tell a worker what it needs to know before its first order."""
        await self._prepare(name, link)

    async def describe_again(self, device_id: str) -> None:
        """Ask the worker what its device is by now; nothing is tried anew."""
        view, link = self._devices.find(device_id), self.worker_of(device_id)
        if view is not None and link is not None:
            await link.greet()
            self._devices.described(view.name, link.device, view.reach, ready=True)

    def struck(self, device_id: str, fault_index: int) -> None:
        """A scripted fault takes effect."""
        self.on_fault(device_id, fault_index)

    async def arrived(self, name: str, lane: Lane) -> None:
        """A worker is ready. The lane first: whoever waits for the device finds it."""
        assert lane.worker is not None
        device = lane.worker.device
        reach = await self._reach(device)
        self._dispatcher.lanes.add(lane)
        self._devices.described(name, device, reach, ready=True)
        self._dispatcher.pump()

    def unready(self, name: str, problem: DeviceOpsError) -> None:
        """A life of a worker ended before it was ready."""
        self._devices.unready(name, problem)

    def left(self, lane: Lane, problem: DeviceOpsError | None) -> None:
        """A worker is gone. The device first: what breaks off now is told with its fault as the cause."""
        device_id = lane.device_id
        self._devices.worker_gone(device_id, problem)
        self._dispatcher.lanes.remove(lane)
        self._loaded.remove_device(device_id)
        for gone in self.on_gone:
            gone(device_id)
