"""Number of jobs that share a device, unless the operator sets it.

On a GPU, kernel launches take much of the time, and jobs that share steps save launches. On a CPU, arithmetic takes the
time, so a further job only waits.
"""

from domains.device.device import Backend, Device

MOST_JOBS = 64
"""The highest number that an operator can set."""
_JOBS_ON_CPU = 2
_JOBS = 8


def jobs_at_once(device: Device, asked: int | None) -> int:
    """Jobs that run on the device at once. `asked`: the operator's number; None: the device's own."""
    return asked or (_JOBS_ON_CPU if device.backend is Backend.CPU else _JOBS)
