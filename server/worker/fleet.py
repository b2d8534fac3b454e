"""The workers of all devices."""

import time
from collections.abc import Callable, Iterable

from domains.device.device import Device
from domains.device.devices import Devices
from domains.device.record import DeviceReach
from domains.device.sharing import jobs_at_once
from domains.device.telemetry import ALWAYS
from domains.device.threaded_telemetry import ThreadedTelemetry
from domains.errors import DeviceOpsError
from domains.failure import Failure
from domains.model.loaded_models import LoadedModels
from domains.processing.lanes.lane import Lane
from domains.processing.lanes.lanes import Lanes
from server.background import Spawn
from server.device.simulated import Simulation
from server.worker.keeper import WorkerKeeper
from server.worker.life import Launcher, Link


class Fleet:
    """Starts keepers, and passes what they report to devices, lanes and loaded models. Implements `WorkerListener`."""

    def __init__(
        self,
        devices: Devices,
        lanes: Lanes,
        loaded: LoadedModels,
        telemetry: ThreadedTelemetry,
        simulation: Simulation,
        launcher: Launcher,
        jobs_per_device: int | None,
        pump: Callable[[], None],
        spawn: Spawn,
    ) -> None:
        """`jobs_per_device`: see `jobs_at_once`. `pump` starts queued jobs that can start now."""
        self.keepers: list[WorkerKeeper] = []
        self.on_change: list[Callable[[], None]] = []
        """Called when the state of a keeper changes."""
        self.on_gone: list[Callable[[str], None]] = []
        """Called with the id of a device whose worker has ended, which has freed the device's memory."""
        self._devices = devices
        self._lanes = lanes
        self._loaded = loaded
        self._telemetry = telemetry
        self._simulation = simulation
        self._launcher = launcher
        self._jobs_per_device = jobs_per_device
        self._pump = pump
        self._spawn = spawn

    def start(self, name: str, device: Device | None) -> None:
        """Start a worker for a new device, or again for a device that came back.

        A device that is known without a worker is listed at once, as STARTING.
        """
        if device is not None and self._devices.find(device.id) is None:
            reach = DeviceReach(controls=ALWAYS, capacity=jobs_at_once(device, self._jobs_per_device))
            self._devices.described(name, device, reach, ready=False)
        for keeper in self.keepers:
            if keeper.name == name or (device is not None and keeper.device_id == device.id):
                keeper.resume()
                return
        device_id = device.id if device is not None else ""
        keeper = WorkerKeeper(name, device_id, self, self._capacity, self._launcher)
        self.keepers.append(keeper)
        self._spawn(keeper.keep())

    def suspend(self, device_id: str) -> None:
        """End a device's worker, and do not start it again."""
        for keeper in self._of(device_id):
            keeper.suspend()

    def restart(self, device_id: str, why: str) -> None:
        """End a device's worker process, ready or not, and start the next at once."""
        for keeper in self._of(device_id):
            keeper.end(why)

    def worker_of(self, device_id: str) -> Link | None:
        """The device's worker, if it is ready."""
        return next((keeper.link for keeper in self._of(device_id) if keeper.link), None)

    def links_of(self, device_id: str) -> list[Link]:
        """Links to the device's worker, ready or not: one or none."""
        return [keeper.live_link for keeper in self._of(device_id) if keeper.live_link]

    def uptime(self, device_id: str) -> tuple[float | None, int]:
        """Seconds since the device's worker became ready (None: none is ready), and how often it was restarted."""
        keeper = next(iter(self._of(device_id)), None)
        if keeper is None:
            return None, 0
        return (None if keeper.ready_s is None else time.monotonic() - keeper.ready_s), keeper.restarts

    def pids(self) -> list[int]:
        """Process ids of all workers."""
        return [keeper.pid for keeper in self.keepers if keeper.pid]

    def _of(self, device_id: str) -> Iterable[WorkerKeeper]:
        return (keeper for keeper in self.keepers if device_id in (keeper.device_id, keeper.name))

    def _capacity(self, device: Device) -> int:
        view = self._devices.find(device.id)
        return (view.settings.max_concurrent_jobs if view else None) or jobs_at_once(device, self._jobs_per_device)

    async def describe_again(self, device_id: str) -> None:
        """Ask the worker for its current description of the device. The worker probes nothing again."""
        view, link = self._devices.find(device_id), self.worker_of(device_id)
        if view is not None and link is not None:
            await link.describe()
            self._devices.described(view.name, link.device, view.reach, ready=True)

    async def prepare(self, name: str, link: Link) -> None:
        """Send the worker of a simulated device its script."""
        await self._simulation.prepare(name, link)

    def fault_struck(self, device_id: str, fault_index: int) -> None:
        """Count a scripted fault that takes effect."""
        self._simulation.fault_struck(device_id, fault_index)

    async def arrived(self, name: str, lane: Lane) -> None:
        """Record that a worker is ready."""
        assert lane.worker is not None
        device = lane.worker.device
        reach = await self._telemetry.reach(device, jobs_at_once(device, self._jobs_per_device))
        # The lane first: callers that wait for the device use it as soon as the device is ready.
        self._lanes.add(lane)
        self._devices.described(name, device, reach, ready=True)
        self._pump()

    def unready(self, name: str, problem: DeviceOpsError) -> None:
        """Record that a worker ended before it was ready."""
        self._devices.unready(name, problem)

    def left(self, lane: Lane, problem: DeviceOpsError | None) -> None:
        """Record that a worker has ended."""
        device_id = lane.device_id
        # The device first: its fault is the cause of the jobs that end with the lane.
        self._devices.worker_gone(device_id, problem)
        self._lanes.remove(lane)
        self._loaded.remove_device(device_id, Failure.of(problem) if problem else None)
        for gone in self.on_gone:
            gone(device_id)

    def state_changed(self) -> None:
        """Call the listeners."""
        for listener in self.on_change:
            listener()
