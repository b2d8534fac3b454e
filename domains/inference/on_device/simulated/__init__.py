"""The worker's side of the simulated device: `StepLoop("cpu", report, hardware=SimulatedHardware(setup, struck))`.

The front's side is `domains.device.simulated`.
"""

from domains.inference.on_device.simulated.simulated_hardware import SimulatedHardware

__all__ = ["SimulatedHardware"]
