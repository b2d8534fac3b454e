"""Keeps what benchmarks measured of the devices, for advice and capabilities."""

from domains.device.benchmark import BenchmarkReport, relative_speed, step_s
from domains.device.devices import Devices
from domains.device.record import DeviceFigures
from domains.processing.jobs.event import BenchmarkResult
from domains.processing.jobs.job import Job
from domains.processing.jobs.jobs import Jobs
from domains.processing.jobs.state import JobState


class MeasuredFigures:
    """Listens to the ends of benchmarks."""

    def __init__(self, jobs: Jobs, devices: Devices) -> None:
        self._devices = devices
        jobs.listeners.append(self._note)

    def _note(self, job: Job) -> None:
        if job.state is not JobState.SUCCEEDED or not isinstance(job.result, BenchmarkResult):
            return
        report = job.result.report
        if self._devices.find(report.device_id) is None:
            return
        found = {result.median.name: result.median.value for result in report.results}
        before = self._devices.get(report.device_id).figures
        figures = DeviceFigures(
            memory_bandwidth_bytes_per_s=found.get("device_copy", before.memory_bandwidth_bytes_per_s),
            relative_speed=self._against_cpu(report) or before.relative_speed,
        )
        self._devices.measured(report, figures)

    def _against_cpu(self, report: BenchmarkReport) -> float | None:
        """Absent until the CPU was measured too."""
        cpu = self._devices.find("cpu")
        own = report if report.device_id == "cpu" else cpu and cpu.benchmark
        reference = step_s(own) if own else None
        return relative_speed(report, reference) if reference else None
