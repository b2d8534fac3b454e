"""Counts how often each fault has struck.

The server keeps the count, because a fault may kill the worker. A new worker gets the device and its armed faults
(`SimSetup`). It reports a fault (`FaultStruck`, in the call of the affected order) before the fault takes effect, and counts
down by itself while it runs.
"""

import msgspec

from domains.device.simulated.faults import Fault, Leak, SlowLoad
from domains.device.simulated.script import SimDevice


class ArmedFault(msgspec.Struct, frozen=True, kw_only=True):
    """A fault that can strike."""

    index: int
    """Position in the device's list of faults in the script."""
    fault: Fault
    strikes_left: int | None
    """Absent: unlimited."""


class SimSetup(msgspec.Struct, frozen=True, kw_only=True):
    """The first message to the worker of a simulated device, repeated when the script changes."""

    device: SimDevice
    armed: tuple[ArmedFault, ...]


class FaultCounts:
    """Counts strikes by device and position in its list. A fault that is changed or moved in the script starts from zero."""

    def __init__(self) -> None:
        self._strikes: dict[tuple[str, int], tuple[Fault, int]] = {}

    def setup(self, device: SimDevice) -> SimSetup:
        """The message for the device's worker now."""
        armed = (self._armed(device.id, index, fault) for index, fault in enumerate(device.faults))
        return SimSetup(device=device, armed=tuple(fault for fault in armed if fault is not None))

    def count_strike(self, device: SimDevice, index: int) -> None:
        """Count a fault that a worker reports. An index that the script no longer has is ignored."""
        if 0 <= index < len(device.faults):
            fault = device.faults[index]
            self._strikes[device.id, index] = fault, self._strike_count(device.id, index, fault) + 1

    def _strike_count(self, device_id: str, index: int, fault: Fault) -> int:
        """Number of strikes of the fault at this position. Those of another fault there do not count."""
        struck, count = self._strikes.get((device_id, index), (fault, 0))
        return count if struck == fault else 0

    def _armed(self, device_id: str, index: int, fault: Fault) -> ArmedFault | None:
        if isinstance(fault, SlowLoad | Leak) or fault.times == 0:
            return ArmedFault(index=index, fault=fault, strikes_left=None)
        left = fault.times - self._strike_count(device_id, index, fault)
        return ArmedFault(index=index, fault=fault, strikes_left=left) if left > 0 else None
