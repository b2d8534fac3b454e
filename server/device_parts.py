"""Everything about devices, constructed and wired."""

import os
from collections.abc import Callable, Coroutine, Mapping
from contextlib import suppress

from domains.device.cpu_telemetry import CpuTelemetry
from domains.device.device import Backend, Device, DeviceState
from domains.device.device_names import AUTO, worker_name
from domains.device.devices import Devices
from domains.device.directml.dxcore import open_dxcore
from domains.device.directml.inventory import DirectMLInventory
from domains.device.inventory import CudaInventory, host_processor
from domains.device.limit_book import LimitBook
from domains.device.nvml import NvmlTelemetry
from domains.device.patient import PatientTelemetry
from domains.device.patient_inventory import PatientInventory
from domains.device.record import DeviceReach, DeviceView
from domains.device.refresh import Refreshed
from domains.device.settings import DeviceSettings
from domains.device.telemetry import ALWAYS, TelemetryByBackend
from domains.device.visible import names_parts
from domains.errors import DeviceOpsError
from domains.events import EventLog
from domains.model.catalogue import Catalogue
from domains.model.loaded import LoadedModels
from domains.processing.board import Board as Dispatcher
from domains.processing.device_advice import DeviceAdvisor
from domains.processing.device_care import DeviceCare
from domains.processing.device_control import DeviceControl
from domains.processing.device_statuses import DeviceStatuses
from domains.processing.hot_plug import HotPlug
from domains.processing.inventory_watch import Inventory
from domains.processing.jobs import Jobs
from server.device_messages import TASKS
from server.settings import Settings
from server.simulated import Simulation
from server.worker.command import WorkerStart
from server.worker.fleet import Fleet
from server.worker.launcher import ProcessLauncher

_VISIBLE = "CUDA_VISIBLE_DEVICES"
_LOOK_S = 5.0


class DeviceParts:
    """The devices, their workers, and who looks after them."""

    fleet: Fleet
    statuses: DeviceStatuses
    care: DeviceCare
    control: DeviceControl
    hot_plug: HotPlug

    def __init__(self, settings: Settings, events: EventLog) -> None:
        self._settings = settings
        self.simulation = Simulation(settings.devices, settings.sim_script)
        self._nvml = NvmlTelemetry(book=LimitBook(settings.state))
        backends = {
            Backend.CPU: CpuTelemetry(),
            Backend.CUDA: self._nvml,
            Backend.SIMULATED: self.simulation.telemetry,
        }
        self.telemetry = PatientTelemetry(TelemetryByBackend(backends))
        self._launcher = ProcessLauncher(self._start)
        self._closing: list[Callable[[], None]] = [self.telemetry.close]
        self._inventories: list[Inventory] = []
        self._idle: dict[str, Device] = {}
        """Listed, and no worker computes on them unless somebody enables them: it would take half a gigabyte for nothing."""
        self._names = self._wanted()
        self.devices = Devices(events, expected=list(self._names))

    def _wanted(self) -> dict[str, Device | None]:
        """The workers to start at once; None: only the worker will know its device."""
        wanted = self._settings.devices
        every_gpu = AUTO in wanted or "cuda" in wanted
        named = [worker_name(name) for name in wanted if name not in (AUTO, "cuda") and not name.startswith("sim")]
        names: dict[str, Device | None] = {
            name: host_processor() if name == "cpu" else None for name in dict.fromkeys(named)
        }
        if every_gpu or any(name.startswith("cuda") for name in named):
            cuda = CudaInventory(self._nvml, None if every_gpu else named, os.environ.get(_VISIBLE))
            self._inventories.append(cuda)
            names |= self._first_look(cuda)
        if any(name.startswith("directml") for name in named) and (dxcore := open_dxcore()):
            directml = DirectMLInventory(dxcore, named)
            self._inventories.append(directml)
            names |= self._first_look(directml)
        if self.simulation.wanted:
            names |= self.simulation.script.look_now()
            self._inventories.append(self.simulation.script)
        if AUTO in wanted and not names:
            names = {"cpu": host_processor()}
            if dxcore := open_dxcore():
                # What computes faster, if somebody has made its environment.
                self._idle |= self._first_look(DirectMLInventory(dxcore))
        if "cpu" not in names:
            self._idle["cpu"] = host_processor()
        return names

    def _first_look(self, inventory: PatientInventory) -> Mapping[str, Device]:
        """What is there before the server serves; nothing where the driver fails: RefreshDevices tells what is wrong."""
        self._closing.append(inventory.close)
        with suppress(DeviceOpsError):
            return inventory.look_now()
        return {}

    def wire(self, dispatcher: Dispatcher, loaded: LoadedModels) -> None:
        """With what runs jobs."""
        settings = self._settings
        self.fleet = Fleet(
            self.devices,
            dispatcher,
            loaded,
            self._reach,
            self.simulation.prepare,
            settings.jobs_per_device,
            self._launcher,
        )
        self.fleet.on_fault = self.simulation.struck
        self.fleet.look_again = lambda: self.fleet.spawn(self._look_again())
        self.simulation.tell_workers(self.fleet)
        self.simulation.on_told = self._tell_script
        self.statuses = DeviceStatuses(self.devices, self.telemetry, dispatcher, self.fleet.uptime)
        self.care = DeviceCare(
            self.devices,
            dispatcher,
            self.statuses.sample,
            self.fleet.restart,
            settings.recheck_s,
            settings.stall_timeout_s,
        )
        self.control = DeviceControl(self.devices, dispatcher, self.telemetry, self._enable)
        self.hot_plug = HotPlug(self._inventories, self.devices, self.fleet, dispatcher)
        self.devices.listeners.append(lambda view, before: self._changed(dispatcher, view, before))

    def advisor(self, catalogue: Catalogue, jobs: Jobs, usable_bytes: Callable[[str], int | None]) -> DeviceAdvisor:
        """Advice needs to know the models, how their jobs went, and what memory may be used."""
        return DeviceAdvisor(self.devices, catalogue, TASKS, jobs, usable_bytes)

    def begin(self) -> list[Coroutine[None, None, None]]:
        """Start the workers; answers what is to run beside the calls."""
        for name, device in self._names.items():
            self.fleet.start(name, device)
        reach, off = (
            DeviceReach(controls=ALWAYS, capacity=self._settings.jobs_per_device),
            DeviceSettings(enabled=False),
        )
        for name, device in self._idle.items():
            self.devices.described(name, device, reach, ready=False, settings=off)
        looking = [self.hot_plug.keep_looking(_LOOK_S)] if self._inventories else []
        return [*looking, self.statuses.keep_sampling(), self.simulation.script.keep_looking()]

    async def refresh(self, timeout_s: float, probe_again: bool) -> Refreshed:
        """Look for hardware."""
        self.devices.check_known()
        return await self.hot_plug.look(timeout_s, probe_again=probe_again)

    async def close(self) -> None:
        """End the workers, and put back the limits that held before ours."""
        await self.fleet.close()
        await self._launcher.close()
        await self.control.restore_limits()
        for close in self._closing:
            close()

    def _start(self, name: str) -> WorkerStart:
        """How a worker is started: for DirectML in the environment that has it, for a known GPU with that one alone."""
        if name.startswith("directml"):
            return WorkerStart(name=name, python=self._settings.directml_python)
        view = self.devices.find(name)
        # Which part of a GPU (MIG) is meant, only CUDA knows.
        known = view is not None and view.device.backend is Backend.CUDA and not names_parts(os.environ.get(_VISIBLE))
        return WorkerStart(name=name, uuid=view.device.uuid if view is not None and known else "")

    async def _enable(self, device_id: str) -> None:
        """A device that has no worker gets one."""
        view = self.devices.get(device_id)
        self.fleet.start(view.name, view.device)

    async def _reach(self, device: Device) -> DeviceReach:
        """What can be measured and chosen there, asked once for each life of its worker."""
        telemetry: tuple[str, ...] = ()
        controls = ALWAYS
        # One that was pulled out meanwhile tells nothing; the next look finds it lost.
        with suppress(DeviceOpsError):
            telemetry = (await self.telemetry.sample(device)).telemetry
            controls = await self.telemetry.controls(device)
        return DeviceReach(telemetry=telemetry, controls=controls, capacity=self._settings.jobs_per_device)

    def _tell_script(self, device_id: str) -> None:
        if view := self.devices.find(device_id):
            self.devices.events.script_changed(view)

    async def _look_again(self) -> None:
        """A simulated device appeared, vanished or came back."""
        await self.hot_plug.look(_LOOK_S)

    def _changed(self, dispatcher: Dispatcher, view: DeviceView, before: DeviceView | None) -> None:
        if view.state is DeviceState.QUARANTINED and (before is None or before.state is not view.state):
            self.fleet.spawn(self.care.bring_back(view.device.id))
        if before is None:
            self.fleet.spawn(self.control.restore_left_over(view.device.id))
        elif before.state is DeviceState.LOST and view.state is not DeviceState.LOST:
            self.fleet.spawn(self.control.apply_again(view.device.id))
        if view.device.backend is Backend.SIMULATED:
            self.simulation.telemetry.load(view.device.id, view.running)
        if before is not None and view.state is not before.state:
            dispatcher.pump_soon()
