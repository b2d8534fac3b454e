"""The hardware that is known before a worker runs: drivers, their lists of devices, and the workers to start."""

import os
from collections.abc import Callable, Mapping
from contextlib import suppress

from domains.device.cpu_telemetry import CpuTelemetry
from domains.device.device import Backend, Device
from domains.device.device_names import AUTO, worker_name
from domains.device.directml.dxcore import open_dxcore
from domains.device.directml.inventory import DirectMLInventory
from domains.device.inventory import CudaInventory, host_processor
from domains.device.nvml import NvmlTelemetry
from domains.device.original_limits import OriginalLimits
from domains.device.telemetry import TelemetryByBackend
from domains.device.threaded_inventory import ThreadedInventory
from domains.device.threaded_telemetry import ThreadedTelemetry
from domains.errors import DeviceOpsError
from domains.processing.devices.inventory_watch import Inventory
from server.device.simulated import Simulation
from server.settings import Settings

VISIBLE = "CUDA_VISIBLE_DEVICES"


class Hardware:
    """Drivers and their inventories."""

    def __init__(self, settings: Settings) -> None:
        self.simulation = Simulation(settings.devices, settings.sim_script)
        self._nvml = NvmlTelemetry(original_limits=OriginalLimits(settings.state))
        backends = {
            Backend.CPU: CpuTelemetry(),
            Backend.CUDA: self._nvml,
            Backend.SIMULATED: self.simulation.telemetry,
        }
        self.telemetry = ThreadedTelemetry(TelemetryByBackend(backends))
        self._closing: list[Callable[[], None]] = [self.telemetry.close]
        self.inventories: list[Inventory] = []
        """Lists of devices that can change while the server runs."""
        self.idle: dict[str, Device] = {}
        """Listed devices without a worker until UpdateDevice enables them: a worker takes half a gigabyte."""
        self.names = self._wanted(settings.devices)
        """Workers to start at once, by name; a value of None: only the worker can tell its device."""

    def close(self) -> None:
        """End the drivers' threads."""
        for close in self._closing:
            close()

    def _wanted(self, wanted: list[str]) -> Mapping[str, Device | None]:
        every_gpu = AUTO in wanted or "cuda" in wanted
        named = [worker_name(name) for name in wanted if name not in (AUTO, "cuda") and not name.startswith("sim")]
        names: dict[str, Device | None] = {
            name: host_processor() if name == "cpu" else None for name in dict.fromkeys(named)
        }
        if every_gpu or any(name.startswith("cuda") for name in named):
            cuda = CudaInventory(self._nvml, None if every_gpu else named, os.environ.get(VISIBLE))
            self.inventories.append(cuda)
            names |= self._first_look(cuda)
        if any(name.startswith("directml") for name in named) and (dxcore := open_dxcore()):
            directml = DirectMLInventory(dxcore, named)
            self.inventories.append(directml)
            names |= self._first_look(directml)
        if self.simulation.wanted:
            names |= self.simulation.script.look_now()
            self.inventories.append(self.simulation.script)
        if AUTO in wanted and not names:
            names = {"cpu": host_processor()}
            if dxcore := open_dxcore():
                # Faster than the CPU, but only in a Python environment that has torch-directml.
                self.idle |= self._first_look(DirectMLInventory(dxcore))
        if "cpu" not in names:
            self.idle["cpu"] = host_processor()
        return names

    def _first_look(self, inventory: ThreadedInventory) -> Mapping[str, Device]:
        """The devices of one driver before the server serves; none if the driver fails, which RefreshDevices reports."""
        self._closing.append(inventory.close)
        with suppress(DeviceOpsError):
            return inventory.look_now()
        return {}
