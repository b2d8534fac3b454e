"""`deviceops device benchmark` and `reset`: jobs of a device, followed to their end."""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import typer

from server.cli.calls import ids
from server.cli.calls.connection import AddressOption, JsonOption, connect
from server.cli.calls.job_call import last_of
from server.cli.console.printing import bytes_text, duration_s, emit, notice, quantity, seconds_text, word
from server.cli.console.tables import print_table
from server.cli.devices.devices import state_text

if TYPE_CHECKING:
    from deviceops.device.v1.device_work_pb2 import DeviceBenchmarkReport, DeviceBenchmarkResult, DeviceResetReport


class SuiteName(StrEnum):
    """Names of benchmark suites on the command line."""

    MEMORY = "memory"
    TRANSFER = "transfer"
    COMPUTE = "compute"
    INFERENCE = "inference"
    STABILITY = "stability"


DeviceArgument = Annotated[str, typer.Argument(help="The device's id, or one of its aliases.")]


def benchmark(
    device: DeviceArgument,
    suite: Annotated[
        list[SuiteName] | None,
        typer.Option(help="Only this; may be repeated. [default: all but stability]"),
    ] = None,
    seconds: Annotated[int, typer.Option(min=1, max=3600, help="The longest it may measure.")] = 60,
    address: AddressOption = None,
    json: JsonOption = False,
) -> None:
    """Measure a device. It runs alone there, in its turn; Ctrl-C cancels it. With --json: one event a line."""
    from google.protobuf.duration_pb2 import Duration

    from deviceops.device.v1 import device_service_pb2, device_work_pb2

    suites = [device_work_pb2.DeviceBenchmarkSuite.Value(f"DEVICE_BENCHMARK_SUITE_{one.name}") for one in suite or ()]
    work = device_work_pb2.DeviceBenchmark(suites=suites, max_duration=Duration(seconds=seconds))
    with connect(address) as connection:
        work.device_id = ids.device(connection, device)
        request = device_service_pb2.BenchmarkDeviceRequest(device_benchmark=work)
        call = connection.device.BenchmarkDevice(request)
        last = last_of(connection, call, f"benchmark {work.device_id}", json=json)
    if not json:
        _tell_benchmark(last.device_benchmark_report)


def reset(
    device: DeviceArgument,
    content: Annotated[
        bool, typer.Option("--content", help="Only unload models and empty caches; the worker goes on.")
    ] = False,
    force: Annotated[bool, typer.Option("--force", help="Interrupt jobs that reach no safe point in time.")] = False,
    drain: Annotated[float, typer.Option(min=0, max=3600, help="Seconds that running jobs have for that.")] = 30,
    address: AddressOption = None,
    json: JsonOption = False,
) -> None:
    """Bring a device back to a clean state; its jobs go on afterwards. Ctrl-C cancels it, unless it has begun to throw away.

    With --json: one event a line.
    """
    from google.protobuf.duration_pb2 import Duration

    from deviceops.device.v1 import device_service_pb2, device_work_pb2

    levels = device_work_pb2.DEVICE_RESET_LEVEL_CONTENT, device_work_pb2.DEVICE_RESET_LEVEL_PROCESS
    timeout = Duration()
    timeout.FromNanoseconds(round(drain * 1e9))
    work = device_work_pb2.DeviceReset(level=levels[0] if content else levels[1], drain_timeout=timeout, force=force)
    with connect(address) as connection:
        work.device_id = ids.device(connection, device)
        request = device_service_pb2.ResetDeviceRequest(device_reset=work)
        last = last_of(connection, connection.device.ResetDevice(request), f"reset {work.device_id}", json=json)
    if not json:
        _tell_reset(last.device_reset_report)


def _tell_benchmark(report: DeviceBenchmarkReport) -> None:
    with_what = report.environment
    emit(f"{report.device_id}, {with_what.device_name}: {', '.join(with_what.libraries)}; {with_what.platform}\n")
    heads = ("suite", "figure", "median", "samples", "input")
    print_table(heads, map(_result_row, report.results), "Nothing was measured.")
    for warning in report.warnings:
        notice(f"Warning: {warning}")


def _result_row(result: DeviceBenchmarkResult) -> tuple[str, ...]:
    from deviceops.device.v1 import device_work_pb2

    suite = word(device_work_pb2.DeviceBenchmarkSuite.Name(result.suite), "DEVICE_BENCHMARK_SUITE_")
    median = quantity(result.median.value, result.median.unit)
    return suite, result.median.name, median, str(result.sample_count), result.workload


def _tell_reset(report: DeviceResetReport) -> None:
    took = seconds_text(duration_s(report.duration))
    freed = f"; gave back {bytes_text(report.freed_bytes)}" if report.HasField("freed_bytes") else ""
    emit(f"{report.device.id} is {state_text(report.device)}, after {took}{freed}")
    for what, named in (
        ("Unloaded", report.ended_loaded_model_ids),
        ("Goes on from a safe point", report.paused_job_ids),
        ("Interrupted, and goes on", report.interrupted_job_ids),
    ):
        if named:
            notice(f"{what}: {', '.join(named)}")
