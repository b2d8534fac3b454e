"""DeviceService: hardware, its health and its control."""

from collections.abc import Awaitable, Callable, Iterable
from typing import Any

import grpc

from deviceops.device.v1 import device_health_pb2, device_pb2, device_service_pb2
from domains import limits
from domains.device.device import DeviceState
from domains.device.devices import Devices
from domains.device.record import DeviceView
from domains.device.refresh import Refreshed
from domains.errors import InvalidRequest, Violation
from domains.processing.devices.advice import DeviceAdvisor
from domains.processing.devices.care import DEFAULT_TIMEOUT_S, DeviceCare
from domains.processing.devices.control import DeviceControl
from domains.processing.devices.statuses import DeviceStatuses
from domains.processing.jobs.job import Job
from domains.processing.submit import Submissions
from domains.reasons import Domain
from domains.requests import Asked
from server import convert
from server.device.history import DeviceHistoryMethods
from server.device.messages import DEPTHS, GOALS, from_settings, to_advice, to_device, to_health_report
from server.device.status import DeviceStatusMethods
from server.device.work import from_benchmark, from_reset
from server.heartbeat import Followed
from server.processing.watch import submit_and_follow

Context = grpc.aio.ServicerContext[Any, Any]
Refresh = Callable[[float, bool], Awaitable[Refreshed]]
"""Scans for hardware. Takes the time limit for each backend (s), and whether to probe every device again."""


class DeviceServicer(DeviceStatusMethods, DeviceHistoryMethods):
    """Implements DeviceService."""

    def __init__(
        self,
        devices: Devices,
        statuses: DeviceStatuses,
        control: DeviceControl,
        care: DeviceCare,
        refresh: Refresh,
        advisor: DeviceAdvisor,
        submissions: Submissions,
    ) -> None:
        DeviceStatusMethods.__init__(self, statuses)
        DeviceHistoryMethods.__init__(self, statuses)
        self._devices = devices
        self._control = control
        self._care = care
        self._refresh = refresh
        self._advisor = advisor
        self._submissions = submissions

    async def ListDevices(
        self, request: device_service_pb2.ListDevicesRequest, context: Context
    ) -> device_service_pb2.ListDevicesResponse:
        """List the devices that pass the filter."""
        self._devices.check_known()
        chosen = [to_device(view) for view in self._devices.list() if _accepts(request.filter, view)]
        return device_service_pb2.ListDevicesResponse(devices=chosen)

    async def GetDevice(
        self, request: device_service_pb2.GetDeviceRequest, context: Context
    ) -> device_service_pb2.GetDeviceResponse:
        """Return one device by id or alias."""
        return device_service_pb2.GetDeviceResponse(device=to_device(self._devices.get(request.device_id)))

    async def UpdateDevice(
        self, request: device_service_pb2.UpdateDeviceRequest, context: Context
    ) -> device_service_pb2.UpdateDeviceResponse:
        """Change settings of a device."""
        convert.refuse(convert.cause_violations(request.cause))
        done = await self._control.update(
            request.device_id,
            from_settings(request.settings),
            list(request.update_mask.paths),
            etag=request.etag,
            validate_only=request.validate_only,
            cause=request.cause,
        )
        return device_service_pb2.UpdateDeviceResponse(
            device=to_device(done.view),
            finishing_job_ids=done.finishing[: limits.NAMED_IDS],
            stranded_job_ids=done.stranded[: limits.NAMED_IDS],
        )

    async def RefreshDevices(
        self, request: device_service_pb2.RefreshDevicesRequest, context: Context
    ) -> device_service_pb2.RefreshDevicesResponse:
        """Look for hardware again."""
        limit = _span(request, "timeout_per_backend", 10.0, 0.1, 60.0)
        self._submissions.draining.check()
        found = await self._refresh(limit, request.probe_again)
        return device_service_pb2.RefreshDevicesResponse(
            devices=[to_device(view) for view in self._devices.list()],
            added_ids=found.added,
            changed_ids=found.changed,
            lost_ids=found.lost,
            returned_ids=found.returned,
            backend_failures=[
                device_service_pb2.DeviceBackendFailure(
                    backend=device_pb2.DeviceBackend.Value(f"DEVICE_BACKEND_{one.backend.name}"),
                    failure=convert.to_failure(one.failure, one.time_s, Domain.DEVICE),
                )
                for one in found.failures
            ],
            duration=convert.to_duration(found.duration_s),
        )

    async def CheckDeviceHealth(
        self, request: device_service_pb2.CheckDeviceHealthRequest, context: Context
    ) -> device_service_pb2.CheckDeviceHealthResponse:
        """Check whether a device computes correctly."""
        depth = DEPTHS[device_health_pb2.DeviceHealthDepth.ValueType(request.depth)]
        limit = _span(request, "timeout", DEFAULT_TIMEOUT_S[depth], 1.0, 600.0)
        self._submissions.draining.check()
        report = await self._care.check(request.device_id, depth, limit)
        return device_service_pb2.CheckDeviceHealthResponse(report=to_health_report(report))

    async def RecommendDeviceSettings(
        self, request: device_service_pb2.RecommendDeviceSettingsRequest, context: Context
    ) -> device_service_pb2.RecommendDeviceSettingsResponse:
        """Recommend settings without applying them."""
        goal = GOALS[device_pb2.DeviceGoal.ValueType(request.goal)]
        advice = self._advisor.advise(request.device_id, goal, request.task, request.model_id)
        return device_service_pb2.RecommendDeviceSettingsResponse(advice=to_advice(advice))

    def BenchmarkDevice(  # yields the bytes of its responses, see `register`
        self, request: device_service_pb2.BenchmarkDeviceRequest, context: Context
    ) -> Followed[bytes]:
        """Benchmark a device and follow the job."""

        def submit(asked: Asked) -> Job:
            work, options = convert.both(
                lambda: from_benchmark(request.device_benchmark), lambda: convert.from_options(request.options)
            )
            return self._submissions.benchmark(work, options, asked, detached=request.detached)

        return submit_and_follow(self._submissions, request, context, submit)

    def ResetDevice(  # yields the bytes of its responses, see `register`
        self, request: device_service_pb2.ResetDeviceRequest, context: Context
    ) -> Followed[bytes]:
        """Reset a device and follow the job."""

        def submit(asked: Asked) -> Job:
            work, options = convert.both(
                lambda: from_reset(request.device_reset), lambda: convert.from_options(request.options)
            )
            return self._submissions.reset(work, options, asked, detached=request.detached)

        return submit_and_follow(self._submissions, request, context, submit)


def _accepts(wanted: device_pb2.DeviceFilter, view: DeviceView) -> bool:
    kind = device_pb2.DeviceKind.Value(f"DEVICE_KIND_{view.device.kind.name}")
    backend = device_pb2.DeviceBackend.Value(f"DEVICE_BACKEND_{view.device.backend.name}")
    state = device_pb2.DeviceState.Value(f"DEVICE_STATE_{view.state.name}")
    return (
        (not wanted.kinds or _is_in(wanted.kinds, kind))
        and (not wanted.backends or _is_in(wanted.backends, backend))
        and (_is_in(wanted.states, state) if wanted.states else view.state is not DeviceState.LOST)
        and (not wanted.node_ids or view.device.node_id in wanted.node_ids)
    )


def _is_in(numbers: Iterable[int], number: int) -> bool:
    """Whether a filter's list accepts a value; 0, UNSPECIFIED, accepts every value. An empty list accepts none."""
    return bool({0, number} & set(numbers))


def _span(request: Any, field: str, default: float, low: float, high: float) -> float:
    """A duration of the request in seconds. Raises INVALID_FIELD outside its range."""
    if not request.HasField(field):
        return default
    seconds = convert.from_duration(getattr(request, field))
    if not low <= seconds <= high:
        text = f"{seconds:g} s is not within {low:g}..{high:g} s"
        raise InvalidRequest([Violation(field=field, message=text, allowed=f"{low:g} s..{high:g} s")])
    return seconds
