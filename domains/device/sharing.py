"""How many jobs share a device where the operator does not say it.

Shared steps pay where launches take the time: on a GPU. On a CPU the arithmetic takes it, so that a further job only waits.
"""

from domains.device.device import Backend, Device

MOST_JOBS = 64
"""The most that an operator can ask for."""
_JOBS_ON_CPU = 2
_JOBS = 8


def jobs_at_once(device: Device, asked: int | None) -> int:
    """Jobs that run on the device at once. `asked`: the operator's number; None: the device's own."""
    return asked or (_JOBS_ON_CPU if device.backend is Backend.CPU else _JOBS)
