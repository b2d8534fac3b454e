"""Converts benchmarks and resets to and from messages."""

from deviceops.device.v1 import device_work_pb2
from domains.device.benchmark import Suite
from domains.errors import InvalidRequest, Violation
from domains.processing.jobs.kinds import BenchmarkWork, ResetWork
from server import convert
from server.device.messages import SUITES

_DEFAULT_SUITES = tuple(suite for suite in Suite if suite is not Suite.STABILITY)


def from_benchmark(message: device_work_pb2.DeviceBenchmark) -> BenchmarkWork:
    """The benchmark of a request. Raises INVALID_FIELD with all violations."""
    wrong: list[Violation] = []
    if any(suite not in SUITES for suite in message.suites):
        names = ", ".join(suite.name for suite in Suite)
        wrong.append(Violation(field="device_benchmark.suites", message="there is no such suite", allowed=names))
    duration = convert.from_duration(message.max_duration) if message.HasField("max_duration") else 60.0
    if not 1 <= duration <= 3600:
        text = f"{duration:g} s is not within 1 s..1 h"
        wrong.append(Violation(field="device_benchmark.max_duration", message=text, allowed="1 s..1 h"))
    if wrong:
        raise InvalidRequest(wrong)
    suites = tuple(dict.fromkeys(SUITES[suite] for suite in message.suites))
    return BenchmarkWork(device_id=message.device_id, suites=suites or _DEFAULT_SUITES, max_duration_s=duration)


def from_reset(message: device_work_pb2.DeviceReset) -> ResetWork:
    """The reset of a request. Raises INVALID_FIELD with all violations."""
    wrong: list[Violation] = []
    drain = convert.from_duration(message.drain_timeout) if message.HasField("drain_timeout") else 30.0
    if not 0 <= drain <= 3600:
        text = f"{drain:g} s is not within 0 s..1 h"
        wrong.append(Violation(field="device_reset.drain_timeout", message=text, allowed="0 s..1 h"))
    if wrong:
        raise InvalidRequest(wrong)
    content = message.level == device_work_pb2.DEVICE_RESET_LEVEL_CONTENT
    return ResetWork(device_id=message.device_id, process=not content, drain_timeout_s=drain, force=message.force)


def to_benchmark(work: BenchmarkWork) -> device_work_pb2.DeviceBenchmark:
    """The message of a benchmark."""
    return device_work_pb2.DeviceBenchmark(
        device_id=work.device_id,
        suites=[number for number, suite in SUITES.items() if suite in work.suites],
        max_duration=convert.to_duration(work.max_duration_s),
    )


def to_reset(work: ResetWork) -> device_work_pb2.DeviceReset:
    """The message of a reset."""
    process, content = device_work_pb2.DEVICE_RESET_LEVEL_PROCESS, device_work_pb2.DEVICE_RESET_LEVEL_CONTENT
    return device_work_pb2.DeviceReset(
        device_id=work.device_id,
        level=process if work.process else content,
        drain_timeout=convert.to_duration(work.drain_timeout_s),
        force=work.force,
    )
