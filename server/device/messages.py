"""Converts devices, their health and their figures to and from messages."""

import platform

from deviceops.common.v1 import measurement_pb2
from deviceops.device.v1 import device_advice_pb2, device_health_pb2, device_pb2, device_work_pb2
from domains import limits
from domains.device.advice import DeviceAdvice
from domains.device.benchmark import BenchmarkReport, Suite
from domains.device.device import Device
from domains.device.health import HealthCheck, HealthDepth, HealthReport
from domains.device.record import DeviceView
from domains.device.settings import DeviceGoal, DeviceSettings
from domains.failure import Failure
from domains.measurement import Measurement
from domains.model.benchmark import ModelBenchmarkReport
from domains.processing.jobs.event import ResetResult
from domains.reasons import Domain
from server import convert
from server.fitted import fitted
from server.scrub import scrubbed
from server.version import SERVER_VERSION

TASKS = ("text_to_image",)
"""Tasks that every built family supports."""

SUITES = {device_work_pb2.DeviceBenchmarkSuite.Value(f"DEVICE_BENCHMARK_SUITE_{suite.name}"): suite for suite in Suite}
DEPTHS = {
    device_health_pb2.DEVICE_HEALTH_DEPTH_UNSPECIFIED: HealthDepth.QUICK,
    device_health_pb2.DEVICE_HEALTH_DEPTH_QUICK: HealthDepth.QUICK,
    device_health_pb2.DEVICE_HEALTH_DEPTH_FULL: HealthDepth.FULL,
}
GOALS = {
    device_pb2.DEVICE_GOAL_UNSPECIFIED: DeviceGoal.BALANCED,
    **{device_pb2.DeviceGoal.Value(f"DEVICE_GOAL_{goal.name}"): goal for goal in DeviceGoal},
}


_rendered: dict[str, tuple[DeviceView, device_pb2.Device]] = {}
"""By device: the newest converted view and its message. Views are values: an equal view has the same message."""


def to_device(view: DeviceView) -> device_pb2.Device:
    """The message of a device; what was not measured is absent. Callers must not change it: it is shared."""
    known, message = _rendered.get(view.device.id, (None, None))
    if known is not view or message is None:
        message = fitted(_to_device(view), limits.DEVICE_BYTES)
        _rendered[view.device.id] = view, message
    return message


def _to_device(view: DeviceView) -> device_pb2.Device:
    device, failure = view.device, view.condition.refusal or view.health.last_failure
    failing = view.state.name in ("RECOVERING", "QUARANTINED", "LOST")
    # Heat and silence degrade a device too, without an error.
    failing = failing or (view.state.name == "DEGRADED" and view.health.degraded)
    return device_pb2.Device(
        id=device.id,
        aliases=device.aliases,
        display_name=device.display_name,
        kind=device_pb2.DeviceKind.Value(f"DEVICE_KIND_{device.kind.name}"),
        backend=device_pb2.DeviceBackend.Value(f"DEVICE_BACKEND_{device.backend.name}"),
        state=device_pb2.DeviceState.Value(f"DEVICE_STATE_{view.state.name}"),
        state_reason=scrubbed(view.state_reason),
        state_time=convert.to_time(view.state_time_s),
        state_failure=convert.to_failure(failure, view.health.last_failure_time_s or view.state_time_s, Domain.DEVICE)
        if failing and failure
        else None,
        identity=_identity(device),
        driver=device_pb2.DeviceDriver(
            name=device.driver_name,
            version=device.driver_version,
            runtime=device.runtime_version,
            firmware_version=device.firmware_version,
            supported=not (unsupported := _unsupported(view)),
            unsupported_reason=scrubbed(unsupported),
        ),
        capabilities=_capabilities(view) if device.probe_time_s else None,
        settings=to_settings(view.settings),
        discover_time=convert.to_time(view.discover_time_s),
        update_time=convert.to_time(view.update_time_s),
        etag=view.etag,
        node_id=device.node_id,
    )


def _unsupported(view: DeviceView) -> str:
    """Why the device is unavailable; empty: its worker has probed it successfully."""
    if view.condition.refusal is not None:
        return view.condition.refusal.message
    if view.device.probe_time_s:
        return ""
    last = view.health.last_failure
    return f"no worker was ready yet: {last.message}" if last else "no worker has tried it yet"


def _identity(device: Device) -> device_pb2.DeviceIdentity:
    return device_pb2.DeviceIdentity(
        vendor=device.vendor,
        architecture=device.architecture,
        pci_bus_id=device.pci_bus_id,
        adapter_luid=device.adapter_luid,
        vendor_uuid=device.uuid,
        backend_index=device.backend_index,
        pci_vendor_id=device.pci_vendor_id,
        pci_device_id=device.pci_device_id,
    )


def _capabilities(view: DeviceView) -> device_pb2.DeviceCapabilities:
    device = view.device
    return device_pb2.DeviceCapabilities(
        total_memory_bytes=device.total_memory_bytes,
        memory_bandwidth_bytes_per_second=view.figures.memory_bandwidth_bytes_per_s,
        compute_capability=device.compute_capability,
        compute_units=device.compute_units,
        max_clock_mhz=device.max_clock_mhz,
        precisions=[
            device_pb2.PrecisionSupport(
                precision=convert.to_precision(tried.precision),
                supported=tried.supported,
                detail=scrubbed(tried.detail),
            )
            for tried in device.precision_support
        ],
        tasks=TASKS,
        max_concurrent_jobs=view.reach.capacity,
        allocation_alignment_bytes=device.allocation_alignment_bytes,
        features=device.features,
        telemetry=view.reach.telemetry,
        controls=view.reach.controls,
        relative_speed=view.figures.relative_speed,
        probe_time=convert.to_time(device.probe_time_s),
    )


def to_settings(settings: DeviceSettings) -> device_pb2.DeviceSettings:
    """The message of settings."""
    return device_pb2.DeviceSettings(
        enabled=settings.enabled,
        draining=settings.draining,
        goal=device_pb2.DeviceGoal.Value(f"DEVICE_GOAL_{settings.goal.name}"),
        power_limit_watts=settings.power_limit_watts,
        max_concurrent_jobs=settings.max_concurrent_jobs,
        max_temperature_celsius=settings.max_temperature_celsius,
    )


def from_settings(message: device_pb2.DeviceSettings) -> DeviceSettings:
    """Settings from a message; the update mask says which fields count."""

    def given(name: str) -> bool:
        return message.HasField(name)  # pyright: ignore[reportArgumentType]  # the names below are fields

    return DeviceSettings(
        enabled=message.enabled,
        draining=message.draining,
        goal=GOALS[message.goal],
        power_limit_watts=message.power_limit_watts if given("power_limit_watts") else None,
        max_concurrent_jobs=message.max_concurrent_jobs if given("max_concurrent_jobs") else None,
        max_temperature_celsius=message.max_temperature_celsius if given("max_temperature_celsius") else None,
    )


def to_measurement(measurement: Measurement) -> measurement_pb2.Measurement:
    """One figure."""
    return measurement_pb2.Measurement(name=measurement.name, value=measurement.value, unit=measurement.unit)


def to_health_report(report: HealthReport) -> device_health_pb2.DeviceHealthReport:
    """The message of a health report."""
    return device_health_pb2.DeviceHealthReport(
        device_id=report.device_id,
        verdict=_verdict(report.verdict.name),
        checks=[_check(check, report.check_time_s) for check in report.checks],
        recommendations=report.recommendations,
        check_time=convert.to_time(report.check_time_s),
        queue_time=convert.to_duration(report.queue_s),
        duration=convert.to_duration(report.duration_s),
    )


def _check(check: HealthCheck, time_s: float) -> device_health_pb2.DeviceHealthCheck:
    failure = None
    if check.failure_reason is not None:
        failure = convert.to_failure(Failure(reason=check.failure_reason, message=check.message), time_s, Domain.DEVICE)
    return device_health_pb2.DeviceHealthCheck(
        name=check.name,
        verdict=_verdict(check.verdict.name),
        message=scrubbed(check.message),
        duration=convert.to_duration(check.duration_s),
        measurements=[to_measurement(one) for one in check.measurements],
        failure=failure,
    )


def _verdict(name: str) -> device_health_pb2.DeviceHealthVerdict.ValueType:
    return device_health_pb2.DeviceHealthVerdict.Value(f"DEVICE_HEALTH_VERDICT_{name}")


def to_environment(report: BenchmarkReport | ModelBenchmarkReport) -> measurement_pb2.MeasurementEnvironment:
    """The message of the hardware and software on which a report was measured."""
    return measurement_pb2.MeasurementEnvironment(
        device_name=report.device_name,
        driver_version=report.driver_version,
        libraries=report.libraries,
        platform=platform.platform(),
        server_version=SERVER_VERSION,
    )


def to_benchmark_report(report: BenchmarkReport) -> device_work_pb2.DeviceBenchmarkReport:
    """The message of a benchmark report."""
    return device_work_pb2.DeviceBenchmarkReport(
        device_id=report.device_id,
        environment=to_environment(report),
        results=[
            device_work_pb2.DeviceBenchmarkResult(
                suite=device_work_pb2.DeviceBenchmarkSuite.Value(f"DEVICE_BENCHMARK_SUITE_{result.suite.name}"),
                median=to_measurement(result.median),
                samples=result.samples,
                sample_count=result.sample_count,
                workload=result.workload,
            )
            for result in report.results
        ],
        warnings=report.warnings,
        start_time=convert.to_time(report.start_time_s),
        duration=convert.to_duration(report.duration_s),
    )


def to_reset_report(result: ResetResult) -> device_work_pb2.DeviceResetReport:
    """The message of a reset's report."""
    report = result.report
    level = device_work_pb2.DEVICE_RESET_LEVEL_PROCESS if report.process else device_work_pb2.DEVICE_RESET_LEVEL_CONTENT
    return device_work_pb2.DeviceResetReport(
        device=to_device(result.view),
        level=level,
        freed_bytes=report.freed_bytes,
        ended_loaded_model_ids=report.ended_loaded_model_ids[: limits.NAMED_IDS],
        interrupted_job_ids=report.interrupted_job_ids[: limits.NAMED_IDS],
        duration=convert.to_duration(report.duration_s),
    )


def to_advice(advice: DeviceAdvice) -> device_advice_pb2.DeviceAdvice:
    """The message of advice."""
    return device_advice_pb2.DeviceAdvice(
        settings=to_settings(advice.settings),
        changed_fields=advice.changed_fields,
        options=[
            device_advice_pb2.DeviceOptionAdvice(option=one.option, use=one.use, reason=one.reason)
            for one in advice.options
        ],
        expected_effects=[to_measurement(one) for one in advice.expected_effects],
        sample_count=advice.sample_count,
        rationale=advice.rationale,
    )
