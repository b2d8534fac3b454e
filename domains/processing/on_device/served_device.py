"""The device that a worker process serves."""

from collections.abc import Callable

from domains.device.device import Device
from domains.device.device_names import ordinal
from domains.device.on_device.probe import probe
from domains.device.on_device.torch_device import cannot_use, torch_name
from domains.device.simulated.describe import describe
from domains.device.simulated.fault_counts import SimSetup
from domains.inference.on_device.simulated import SimulatedHardware
from domains.memory.on_device import allocator


class ServedDevice:
    """Starts the device's allocator, then probes the device."""

    def __init__(
        self, name: str, setup: SimSetup | None, struck: Callable[[int, str], None], *, pinned: bool = False
    ) -> None:
        """`setup`: script of a simulated device. `struck`: called with each fault's index and the order's id.

        `pinned`: this process sees no other GPU. Raises DRIVER_ERROR, FEATURE_NOT_INSTALLED, DEVICE_NOT_FOUND.
        """
        self.name = name
        self.simulated = SimulatedHardware(setup, struck) if setup is not None else None
        """None: real hardware."""
        self.torch_name = "cpu" if self.simulated else torch_name(name, pinned=pinned)
        try:
            self.runtime = allocator.start(self.torch_name)
        except RuntimeError as error:
            raise cannot_use(name, error) from error
        self._cpu: Device | None = None
        """The processor that computes for a simulated device."""
        self.value = self._probe()

    def set_up(self, setup: SimSetup) -> None:
        """Follow a changed script. The processor is not probed again."""
        assert self.simulated is not None, "only a simulated device has a script"
        self.simulated.set_up(setup)
        self.value = self._probe()

    def probe_again(self) -> Device:
        """Probe the device again."""
        self._cpu = None
        self.value = self._probe()
        return self.value

    def _probe(self) -> Device:
        if self.simulated is None:
            return probe(self.torch_name, ordinal(self.name))
        self._cpu = self._cpu or probe(self.torch_name)
        return describe(self.simulated.device, self._cpu)
