"""GetDeviceStatus and WatchDeviceStatus."""

from collections.abc import AsyncIterator, Sequence
from contextlib import aclosing
from typing import Any, Protocol

import grpc

from deviceops.device.v1 import device_pb2, device_service_pb2, device_status_pb2
from domains.device.feed import LONGEST_S, SHORTEST_S, Clock, StatusFeed
from domains.device.status import DeviceStatus, Workload
from domains.errors import InvalidRequest, Violation
from domains.reasons import Domain
from server import convert

Context = grpc.aio.ServicerContext[Any, Any]

DEFAULT_INTERVAL_S = 1.0

_FIGURES = (
    "utilization_ratio",
    "memory_activity_ratio",
    "used_memory_bytes",
    "total_memory_bytes",
    "temperature_celsius",
    "memory_temperature_celsius",
    "power_watts",
    "power_limit_watts",
    "clock_mhz",
    "memory_clock_mhz",
    "fan_speed_fraction",
)
"""Fields with the same names in DeviceSample and in the contract's DeviceStatus."""


class StatusSource(Protocol):
    """Measures devices."""

    def ids(self) -> Sequence[str]:
        """All devices, lost ones too. Raises STARTING until the first device is known."""
        ...

    def resolve(self, name: str) -> str:
        """The id of a device by id or alias. Raises DEVICE_NOT_FOUND, STARTING."""
        ...

    async def status(self, device_id: str) -> DeviceStatus:
        """Measure a device now. A lost device has no measurements; this does not raise."""
        ...


class DeviceStatusMethods:
    """Implements the two methods; the servicer inherits them."""

    def __init__(self, source: StatusSource, clock: Clock | None = None) -> None:
        self._source = source
        self.feed = StatusFeed(source.ids, source.status, clock)

    async def GetDeviceStatus(
        self, request: device_service_pb2.GetDeviceStatusRequest, context: Context
    ) -> device_service_pb2.GetDeviceStatusResponse:
        """Measure one device now."""
        status = await self._source.status(self._source.resolve(request.device_id))
        return device_service_pb2.GetDeviceStatusResponse(status=to_status(status))

    async def WatchDeviceStatus(
        self, request: device_service_pb2.WatchDeviceStatusRequest, context: Context
    ) -> AsyncIterator[device_service_pb2.WatchDeviceStatusResponse]:
        """Measure devices at an interval; a slow watcher gets only the newest round."""
        interval_s = _interval(request)
        ids = tuple(dict.fromkeys(self._source.resolve(name) for name in request.device_ids))
        async with aclosing(self.feed.watch(ids, interval_s)) as rounds:
            async for each in rounds:
                yield device_service_pb2.WatchDeviceStatusResponse(
                    statuses=map(to_status, each.statuses), skipped_count=each.skipped_count
                )


def _interval(request: device_service_pb2.WatchDeviceStatusRequest) -> float:
    if not request.HasField("interval"):
        return DEFAULT_INTERVAL_S
    seconds = convert.from_duration(request.interval)
    if not SHORTEST_S <= seconds <= LONGEST_S:
        allowed = f"{SHORTEST_S:g}..{LONGEST_S:g} s"
        message = (
            f"{seconds:g} s is outside {allowed}; choose one within, or leave it away for {DEFAULT_INTERVAL_S:g} s"
        )
        raise InvalidRequest([Violation(field="interval", message=message, allowed=allowed)])
    return seconds


def to_status(status: DeviceStatus) -> device_status_pb2.DeviceStatus:
    """The message of a status; what was not measured is absent."""
    sample, failure, uptime = status.sample, status.last_failure, status.worker_uptime_s
    message = device_status_pb2.DeviceStatus(
        device_id=status.device_id,
        state=device_pb2.DeviceState.Value(f"DEVICE_STATE_{status.state.name}"),
        sample_time=convert.to_time(sample.time_s),
        throttle_reasons=[
            device_status_pb2.DeviceThrottleReason.Value(f"DEVICE_THROTTLE_REASON_{reason.name}")
            for reason in sample.throttle_reasons
        ],
        error_count=status.error_count,
        consecutive_error_count=status.consecutive_error_count,
        last_failure=None
        if failure is None
        else convert.to_failure(failure, status.last_failure_time_s, Domain.DEVICE),
        worker_uptime=None if uptime is None else convert.to_duration(uptime),
        worker_restart_count=status.worker_restart_count,
        workload=to_workload(status.workload),
    )
    for name in _FIGURES:
        value = getattr(sample, name)
        if value is not None:
            setattr(message, name, value)
    return message


def to_workload(workload: Workload) -> device_status_pb2.DeviceWorkload:
    """The message of a workload."""
    idle_s = workload.estimated_idle_s
    return device_status_pb2.DeviceWorkload(
        running_count=len(workload.running_job_ids),
        queued_count=workload.queued_count,
        running_job_ids=workload.running_job_ids,
        estimated_idle_in=None if idle_s is None else convert.to_duration(idle_s),
        jobs_per_second=workload.jobs_per_s,
        error_ratio=workload.error_ratio,
        run_time=None if workload.run_time is None else convert.to_latency(workload.run_time),
    )
