"""Status and workload of a device at one moment."""

import msgspec

from domains.device.device import DeviceState
from domains.device.sample import DeviceSample
from domains.failure import Failure
from domains.measurement import LatencySummary


class Workload(msgspec.Struct, frozen=True, kw_only=True):
    """Jobs of a device, and how fast it finishes them."""

    running_job_ids: tuple[str, ...] = ()
    """In order of start."""
    queued_count: int = 0
    """Queued jobs that could run here."""
    estimated_idle_s: float | None = None
    """Estimated time until all jobs are done. Absent: not enough measurements."""
    jobs_per_s: float = 0.0
    """Jobs per second over the last minute."""
    error_ratio: float | None = None
    """Share of these jobs that failed. Absent: none ended."""
    run_time: LatencySummary | None = None
    """Run times of these jobs. Absent: none ended."""


class DeviceStatus(msgspec.Struct, frozen=True, kw_only=True):
    """Status of one device."""

    device_id: str
    state: DeviceState
    sample: DeviceSample
    error_count: int = 0
    """Errors of device, driver and worker since the server started."""
    consecutive_error_count: int = 0
    """Errors since the last job that succeeded."""
    last_failure: Failure | None = None
    last_failure_time_s: float = 0.0
    """Unix time; meaningless without a failure."""
    worker_uptime_s: float | None = None
    """Time since the worker was ready. Absent: no worker is ready."""
    worker_restart_count: int = 0
    """Restarts since the server started."""
    workload: Workload = Workload()
