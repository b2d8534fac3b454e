"""The simulated devices: their script, what their workers are told of it, and what struck."""

from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import structlog

from domains.device.simulated.fault_book import FaultBook
from domains.device.simulated.script import SimDevice, default_script
from domains.device.simulated.script_file import read_script
from domains.device.simulated.telemetry import SimulatedTelemetry
from domains.device.simulated.watch import Difference, ScriptWatch
from domains.errors import DeviceOpsError, InvalidRequest, Violation
from domains.memory.measure import MemoryMeasure
from domains.processing.worker import WorkerGone
from server.worker import wire
from server.worker.link import WorkerLink

if TYPE_CHECKING:
    from server.worker.fleet import Fleet

_log = structlog.get_logger()


class Simulation:
    """All simulated devices. One event loop."""

    def __init__(self, devices: Sequence[str], script: Path | None) -> None:
        """`devices`: the configured names; `sim` and `sim:COUNT` are meant for here."""
        asked = [name for name in devices if name == "sim" or name.startswith("sim:")]
        self.wanted = bool(asked)
        count = sum(_count(name) for name in asked)
        self.script = ScriptWatch(read_script(script) if script else default_script(max(1, count)), script)
        """As it is now, and whatever is edited in it; also the inventory of the simulated backend."""
        self.script.listeners.append(self._differs)
        self._book = FaultBook()
        self._fleet: Fleet | None = None
        self.telemetry = SimulatedTelemetry(self.find)
        self.on_told: Callable[[str], None] = lambda device_id: None
        """Called when a device's worker follows a changed script."""

    def find(self, device_id: str) -> SimDevice | None:
        """The script's device as it is now."""
        return self.script.script.device(device_id)

    def tell_workers(self, fleet: "Fleet") -> None:
        """From now on the workers hear of changes, and devices come and go."""
        self._fleet = fleet

    async def prepare(self, name: str, link: WorkerLink) -> None:
        """Tell a worker what it is, before its first order."""
        if device := self.find(name):
            await link.say(wire.SETUP, wire.encode(self._book.setup(device)))

    def measured(self, device_id: str, measure: MemoryMeasure | None) -> None:
        """A worker told of its memory; None: it has ended."""
        if device := self.find(device_id):
            live = (measure.live_bytes or 0) - device.runtime_bytes if measure else 0
            self.telemetry.holds(device_id, max(0, live))

    def struck(self, device_id: str, fault_index: int) -> None:
        """A worker told that a fault takes effect."""
        device = self.find(device_id)
        # The script may have changed since the worker was told of the fault.
        if device is not None and fault_index < len(device.faults):
            self._book.struck(device, fault_index)
            _log.info("scripted fault", device=device_id, fault=device.faults[fault_index].__struct_config__.tag)

    def _differs(self, difference: Difference) -> None:
        if difference.problem is not None:
            _log.warning("the simulated devices' script cannot be used", problem=difference.problem.message)
        if self._fleet is None:
            return
        if difference.appeared or difference.vanished or difference.returned:
            self._fleet.look_again()
        for device_id in difference.changed:
            self._fleet.spawn(self._tell_again(self._fleet, device_id))

    async def _tell_again(self, fleet: "Fleet", device_id: str) -> None:
        """The script has changed."""
        with suppress(WorkerGone, DeviceOpsError):  # Its next life is told before its first order.
            for link in fleet.links_of(device_id):
                await self.prepare(device_id, link)
                await fleet.describe_again(device_id)
        self.on_told(device_id)


def _count(name: str) -> int:
    """`sim` is one, `sim:3` three."""
    text = name.partition(":")[2] or "1"
    if not text.isdecimal() or len(text) > 4:
        message = f"{name!r} is no simulated device; say `sim`, or `sim:3` for three"
        raise InvalidRequest([Violation(field="devices", message=message)])
    return int(text)
