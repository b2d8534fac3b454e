"""The simulated devices: their script, its faults, and their telemetry."""

from collections.abc import Sequence
from pathlib import Path

import structlog

from domains.device.simulated.fault_counts import FaultCounts
from domains.device.simulated.script import SimDevice, default_script
from domains.device.simulated.script_file import read_script
from domains.device.simulated.telemetry import SimulatedTelemetry
from domains.device.simulated.watch import Difference, ScriptWatch
from domains.errors import InvalidRequest, Violation
from domains.memory.measure import MemoryMeasure
from server.worker.life import Link

_log = structlog.get_logger()


class Simulation:
    """All simulated devices. `simulated_workers` applies changes of the script. One event loop."""

    def __init__(self, devices: Sequence[str], script: Path | None) -> None:
        """`devices`: the configured names; those other than `sim` and `sim:COUNT` are ignored."""
        asked = [name for name in devices if name == "sim" or name.startswith("sim:")]
        self.wanted = bool(asked)
        count = sum(_count(name) for name in asked)
        self.script = ScriptWatch(read_script(script) if script else default_script(max(1, count)), script)
        """The current script, read again when its file changes; also the inventory of the simulated backend."""
        self.script.listeners.append(_log_problem)
        self._fault_counts = FaultCounts()
        self.telemetry = SimulatedTelemetry(self.find)

    def find(self, device_id: str) -> SimDevice | None:
        """The device in the current script."""
        return self.script.script.device(device_id)

    async def prepare(self, name: str, link: Link) -> None:
        """Send a worker its device and faults."""
        if device := self.find(name):
            await link.set_up(self._fault_counts.setup(device))

    def measured(self, device_id: str, measure: MemoryMeasure | None) -> None:
        """Store a worker's measure of its memory; None: the worker has ended."""
        if device := self.find(device_id):
            live = (measure.live_bytes or 0) - device.runtime_bytes if measure else 0
            self.telemetry.holds(device_id, max(0, live))

    def fault_struck(self, device_id: str, fault_index: int) -> None:
        """Count a fault that a worker reports."""
        device = self.find(device_id)
        # The script may have changed since the worker got it.
        if device is not None and fault_index < len(device.faults):
            self._fault_counts.count_strike(device, fault_index)
            _log.info("scripted fault", device=device_id, fault=device.faults[fault_index].__struct_config__.tag)


def _log_problem(difference: Difference) -> None:
    if difference.problem is not None:
        _log.warning("the simulated devices' script cannot be used", problem=difference.problem.message)


def _count(name: str) -> int:
    """Number of devices: 1 for `sim`, 3 for `sim:3`."""
    text = name.partition(":")[2] or "1"
    if not text.isdecimal() or len(text) > 4:
        message = f"{name!r} is no simulated device; say `sim`, or `sim:3` for three"
        raise InvalidRequest([Violation(field="devices", message=message)])
    return int(text)
