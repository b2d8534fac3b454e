"""How often each fault may still strike.

The front keeps the count, since a fault may kill the worker: before each of its lives a worker is told the device and the
faults still armed (`SimSetup`), and it tells of a fault (`FaultStruck`, on the call of the order that is struck) before
the fault takes effect. While it lives it counts down by itself.
"""

import msgspec

from domains.device.simulated.faults import Fault, Leak, SlowLoad
from domains.device.simulated.script import SimDevice


class ArmedFault(msgspec.Struct, frozen=True, kw_only=True):
    """A fault that may strike."""

    index: int
    """Its place among the device's faults in the script."""
    fault: Fault
    strikes_left: int | None
    """Absent: every time."""


class SimSetup(msgspec.Struct, frozen=True, kw_only=True):
    """What a worker of a simulated device is told before anything else, and again when the script changes."""

    device: SimDevice
    armed: tuple[ArmedFault, ...]


class FaultBook:
    """Strikes by device and place in its list. A fault that is changed in the script, or moved, counts from zero again."""

    def __init__(self) -> None:
        self._strikes: dict[tuple[str, int], tuple[Fault, int]] = {}

    def setup(self, device: SimDevice) -> SimSetup:
        """What to tell the device's worker now."""
        armed = (self._armed(device.id, index, fault) for index, fault in enumerate(device.faults))
        return SimSetup(device=device, armed=tuple(fault for fault in armed if fault is not None))

    def struck(self, device: SimDevice, index: int) -> None:
        """A worker told that a fault takes effect. An index that the script no longer has counts nowhere."""
        if 0 <= index < len(device.faults):
            fault = device.faults[index]
            self._strikes[device.id, index] = fault, self.strikes(device, index) + 1

    def strikes(self, device: SimDevice, index: int) -> int:
        """How often a fault has struck."""
        fault, count = self._strikes.get((device.id, index), (None, 0))
        return count if fault == device.faults[index] else 0

    def _armed(self, device_id: str, index: int, fault: Fault) -> ArmedFault | None:
        if isinstance(fault, SlowLoad | Leak) or fault.times == 0:
            return ArmedFault(index=index, fault=fault, strikes_left=None)
        before, count = self._strikes.get((device_id, index), (None, 0))
        left = fault.times - (count if before == fault else 0)
        return ArmedFault(index=index, fault=fault, strikes_left=left) if left > 0 else None
