"""Collects figures for the advice about a device."""

from collections import defaultdict, deque
from collections.abc import Callable

from domains.device.advice import AdviceFigures, DeviceAdvice, advise
from domains.device.benchmark import BenchmarkReport
from domains.device.devices import Devices
from domains.device.effects import MeasuredRun
from domains.device.settings import DeviceGoal
from domains.model.catalogue import Catalogue
from domains.processing.jobs.job import Job
from domains.processing.jobs.jobs import Jobs
from domains.processing.jobs.kinds import GenerateWork
from domains.processing.jobs.state import JobState
from domains.progress import ONCE

_REMEMBERED = 32
"""Runs per model and device."""


class DeviceAdvisor:
    """Collects figures for `domains.device.advice`. Runs come from the receipts of jobs since the server started."""

    def __init__(
        self,
        devices: Devices,
        catalogue: Catalogue,
        tasks: tuple[str, ...],
        jobs: Jobs,
        usable_bytes: Callable[[str], int | None],
    ) -> None:
        """`usable_bytes`: memory that a device's budget lets the server use; None: no known limit."""
        self._devices = devices
        self._catalogue = catalogue
        self._tasks = tasks
        self._usable_bytes = usable_bytes
        self._runs: defaultdict[tuple[str, str], deque[MeasuredRun]] = defaultdict(lambda: deque(maxlen=_REMEMBERED))
        jobs.listeners.append(self._note)

    def advise(self, name: str, goal: DeviceGoal, task: str, model_id: str) -> DeviceAdvice:
        """Recommend settings for a goal. Raises DEVICE_NOT_FOUND, MODEL_NOT_FOUND, INVALID_FIELD."""
        view = self._devices.get(name)
        report: BenchmarkReport | None = view.benchmark
        model = self._catalogue.get(model_id) if model_id else None
        figures = AdviceFigures(
            tasks=self._tasks,
            controls=view.reach.controls,
            max_concurrent_jobs=view.reach.capacity,
            usable_memory_bytes=self._usable_bytes(view.device.id),
            benchmark=report.results if report else (),
            runs=tuple(self._runs.get((view.device.id, model.id), ())) if model else (),
        )
        return advise(view.device, figures, goal, task, model.size_bytes if model else None, view.settings)

    def _note(self, job: Job) -> None:
        """Record the run of a job that succeeded."""
        if job.state is JobState.SUCCEEDED and isinstance(job.work, GenerateWork) and job.receipt is not None:
            view = self._devices.find(job.device_id)
            timings = [one for one in job.receipt.work.timings if one.stage not in ONCE]
            run = MeasuredRun(
                seconds=sum(one.device_s or one.wall_s for one in timings) / len(job.work.resolved.seeds),
                peak_device_bytes=job.receipt.work.peak_device_bytes,
                power_limit_watts=view.settings.power_limit_watts if view else None,
            )
            self._runs[job.device_id, job.work.resolved.runs_as].append(run)
