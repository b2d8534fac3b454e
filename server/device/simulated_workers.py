"""Applies a changed script to simulated devices and their workers."""

from contextlib import suppress

from domains.device.device import Backend
from domains.device.devices import Devices
from domains.device.record import DeviceView
from domains.device.simulated.watch import Difference
from domains.errors import DeviceOpsError
from domains.processing.devices.hot_plug import LOOK_S, HotPlug
from domains.processing.workers.worker import WorkerGone
from server.background import Spawn
from server.device.simulated import Simulation
from server.worker.fleet import Fleet


class SimulatedWorkers:
    """Listens to the script and to the devices. One event loop."""

    def __init__(self, simulation: Simulation, devices: Devices, fleet: Fleet, hot_plug: HotPlug, spawn: Spawn) -> None:
        self._simulation = simulation
        self._devices = devices
        self._fleet = fleet
        self._hot_plug = hot_plug
        self._spawn = spawn
        simulation.script.listeners.append(self._script_changed)
        devices.listeners.append(self._device_changed)

    def _script_changed(self, difference: Difference) -> None:
        if difference.appeared or difference.vanished or difference.returned:
            self._spawn(self._look())
        for device_id in difference.changed:
            self._spawn(self._send_script(device_id))

    async def _look(self) -> None:
        await self._hot_plug.look(LOOK_S)

    async def _send_script(self, device_id: str) -> None:
        # If the worker ends meanwhile, the next one gets the script before its first order.
        with suppress(WorkerGone, DeviceOpsError):
            for link in self._fleet.links_of(device_id):
                await self._simulation.prepare(device_id, link)
                await self._fleet.describe_again(device_id)
        if view := self._devices.find(device_id):
            self._devices.events.script_changed(view)

    def _device_changed(self, view: DeviceView, before: DeviceView | None) -> None:
        """The telemetry of a simulated device follows how many jobs run on it."""
        if view.device.backend is Backend.SIMULATED:
            self._simulation.telemetry.load(view.device.id, view.running)
