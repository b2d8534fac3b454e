"""What benchmarks measured of the devices is kept, and compared with this host's CPU once that was measured too."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from domains.device.benchmark import STEP, BenchmarkReport, BenchmarkResult, Suite
from domains.device.device import Backend
from domains.device.record import DeviceReach
from domains.measurement import Measurement
from domains.processing.devices.figures import MeasuredFigures
from domains.processing.jobs import event
from domains.processing.jobs.state import JobState
from tests.domains.device.test_devices import World, a_device


def report(device_id: str, **values: float) -> BenchmarkReport:
    """A benchmark's report. `values`: medians by name; `step` is that of a denoising step."""

    def result(name: str, value: float) -> BenchmarkResult:
        suite = Suite.INFERENCE if name.startswith(STEP) else next(one for one in Suite if one is not Suite.INFERENCE)
        median = Measurement(name=name, value=value, unit="s")
        return BenchmarkResult(suite=suite, median=median, samples=(value,), sample_count=1, workload="")

    return BenchmarkReport(
        device_id=device_id,
        results=tuple(result(name.replace("step", f"{STEP}_float32"), value) for name, value in values.items()),
        warnings=(),
        libraries=(),
        device_name="",
        driver_version="",
        start_time_s=0.0,
        duration_s=1.0,
    )


class Measured(World):
    """A CPU and a GPU, whose benchmarks a test makes up."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.gpu = self.ready()
        cpu = a_device("cpu", aliases=(), backend=Backend.CPU)
        self.devices.described("cpu", cpu, DeviceReach(), ready=True)
        jobs: Any = SimpleNamespace(listeners=[])
        MeasuredFigures(jobs, self.devices)
        (self._note,) = jobs.listeners

    def end(self, report: BenchmarkReport, state: JobState = JobState.SUCCEEDED) -> None:
        self._note(SimpleNamespace(state=state, result=event.BenchmarkResult(report=report)))

    def figures(self, device_id: str) -> tuple[float | None, float | None]:
        found = self.devices.get(device_id).figures
        return found.memory_bandwidth_bytes_per_s, found.relative_speed


@pytest.fixture
def measured(tmp_path: Path) -> Measured:
    return Measured(tmp_path)


def test_a_device_is_compared_with_the_cpu_once_both_were_measured(measured: Measured) -> None:
    measured.end(report(measured.gpu, step=0.5, device_copy=9.0))
    assert measured.figures(measured.gpu) == (9.0, None)
    measured.end(report("cpu", step=2.0))
    assert measured.figures("cpu") == (None, 1.0)
    measured.end(report(measured.gpu, step=0.25))
    assert measured.figures(measured.gpu) == (9.0, 8.0)
    measured.end(report(measured.gpu, device_copy=7.0))
    assert measured.figures(measured.gpu) == (7.0, 8.0)


def test_a_benchmark_that_did_not_end_well_or_of_a_device_that_is_gone_changes_nothing(measured: Measured) -> None:
    measured.end(report("cpu", step=2.0, device_copy=5.0), JobState.FAILED)
    measured.end(report("gpu-none", step=2.0))
    assert measured.figures("cpu") == (None, None)
