"""How a device is and what it has to do, at one moment."""

import msgspec

from domains.device.device import DeviceState
from domains.device.sample import DeviceSample
from domains.failure import Failure
from domains.measurement import LatencySummary


class Workload(msgspec.Struct, frozen=True, kw_only=True):
    """What a device has to do, and how fast it does it."""

    running_job_ids: tuple[str, ...] = ()
    """In the order in which they began."""
    queued_count: int = 0
    """Jobs that wait and could run here."""
    estimated_idle_s: float | None = None
    """Until nothing is left to do. Absent: not enough was measured."""
    jobs_per_s: float = 0.0
    """Jobs that ended in the last minute, a second."""
    error_ratio: float | None = None
    """Share of these that failed. Absent: none ended."""
    run_time: LatencySummary | None = None
    """Of these. Absent: none ended."""


class DeviceStatus(msgspec.Struct, frozen=True, kw_only=True):
    """One device at one moment."""

    device_id: str
    state: DeviceState
    sample: DeviceSample
    error_count: int = 0
    """Of device, driver and worker, since the server started."""
    consecutive_error_count: int = 0
    """Since the last job that went well."""
    last_failure: Failure | None = None
    last_failure_time_s: float = 0.0
    """Unix time; of no meaning without a failure."""
    worker_uptime_s: float | None = None
    """Since its worker was ready. Absent: none runs."""
    worker_restart_count: int = 0
    """Since the server started."""
    workload: Workload = Workload()
