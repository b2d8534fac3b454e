"""Builds what belongs to the device domain, in order of construction."""

import os
from collections.abc import Callable, Coroutine

from domains.device.device import Backend
from domains.device.devices import Devices
from domains.device.record import DeviceReach, DeviceView
from domains.device.refresh import Refreshed
from domains.device.settings import DeviceSettings
from domains.device.sharing import jobs_at_once
from domains.device.telemetry import ALWAYS
from domains.device.visible import names_parts
from domains.model.catalogue import Catalogue
from domains.model.loaded_models import LoadedModels
from domains.processing.devices.advice import DeviceAdvisor
from domains.processing.devices.care import DeviceCare
from domains.processing.devices.control import DeviceControl
from domains.processing.devices.hot_plug import LOOK_S, HotPlug
from domains.processing.devices.statuses import DeviceStatuses
from domains.processing.jobs.jobs import Jobs
from domains.processing.lanes.board import Board
from server.background import Background
from server.device.hardware import VISIBLE, Hardware
from server.device.messages import TASKS
from server.device.simulated_workers import SimulatedWorkers
from server.settings import Settings
from server.worker.command import WorkerStart
from server.worker.fleet import Fleet
from server.worker.launcher import ProcessLauncher


class DeviceParts:
    """Devices, their workers, and the objects that check and control them."""

    def __init__(
        self,
        settings: Settings,
        hardware: Hardware,
        devices: Devices,
        loaded: LoadedModels,
        board: Board,
        background: Background,
    ) -> None:
        lanes, spawn = board.lanes, background.spawn
        self._settings = settings
        self._hardware = hardware
        self._background = background
        self._pump_soon = board.room.tell_soon
        self.devices = devices
        self.simulation = hardware.simulation
        self._launcher = ProcessLauncher(self._start, settings.state / "code", shared=hardware.simulation.wanted)
        self.fleet = Fleet(
            devices,
            lanes,
            loaded,
            hardware.telemetry,
            self.simulation,
            self._launcher,
            settings.jobs_per_device,
            board.room.tell,
            spawn,
        )
        self.statuses = DeviceStatuses(devices, hardware.telemetry, board.backlog.workload, self.fleet.uptime)
        self.care = DeviceCare(
            devices,
            lanes,
            self.statuses.sample,
            self.fleet.restart,
            spawn,
            recheck_s=settings.recheck_s,
            stall_timeout_s=settings.stall_timeout_s,
        )
        self.control = DeviceControl(
            devices,
            lanes,
            hardware.telemetry,
            self.fleet.start,
            board.room.tell,
            board.backlog.stranded_without,
            spawn,
        )
        self.hot_plug = HotPlug(hardware.inventories, devices, self.fleet, lanes)
        SimulatedWorkers(self.simulation, devices, self.fleet, self.hot_plug, spawn)
        devices.listeners.append(self._device_changed)

    def advisor(self, catalogue: Catalogue, jobs: Jobs, usable_bytes: Callable[[str], int | None]) -> DeviceAdvisor:
        """The object that answers RecommendDeviceSettings. `usable_bytes`: memory that the server may use, by device id."""
        return DeviceAdvisor(self.devices, catalogue, TASKS, jobs, usable_bytes)

    def begin(self) -> list[Coroutine[None, None, None]]:
        """Start the workers; returns the background tasks of the domain."""
        for name, device in self._hardware.names.items():
            self.fleet.start(name, device)
        for name, device in self._hardware.idle.items():
            reach = DeviceReach(controls=ALWAYS, capacity=jobs_at_once(device, self._settings.jobs_per_device))
            self.devices.described(name, device, reach, ready=False, settings=DeviceSettings(enabled=False))
        looking = [self.hot_plug.keep_looking(LOOK_S)] if self._hardware.inventories else []
        return [*looking, self.statuses.keep_sampling(), self.simulation.script.keep_looking()]

    async def refresh(self, timeout_s: float, probe_again: bool) -> Refreshed:
        """Look for hardware."""
        self.devices.check_known()
        return await self.hot_plug.look(timeout_s, probe_again=probe_again)

    async def close(self) -> None:
        """End the workers, and restore the power limits that the server has changed."""
        await self._background.close()
        await self._launcher.close()
        await self.control.restore_limits()
        self._hardware.close()

    def _start(self, name: str) -> WorkerStart:
        """How a worker is started: DirectML in an environment of its own; a known GPU as the only one it sees."""
        if name.startswith("directml"):
            return WorkerStart(name=name, python=self._settings.directml_python)
        view = self.devices.find(name)
        # CUDA alone knows which part of a GPU (MIG) a name means.
        known = view is not None and view.device.backend is Backend.CUDA and not names_parts(os.environ.get(VISIBLE))
        return WorkerStart(name=name, uuid=view.device.uuid if view is not None and known else "")

    def _device_changed(self, view: DeviceView, before: DeviceView | None) -> None:
        """A device whose state changed may start or stop taking jobs."""
        if before is not None and view.state is not before.state:
            self._pump_soon()
