"""Notices silent devices: their running work shows no sign of life for longer than is usual.

A silent device is DEGRADED until its next sign of life. `stall_limit` ends its worker if that does not come.

A device that computes in its worker's thread (a CPU) shows life inside a long step, see `LoadRun.show_life`. Another device
shows none before the step's end: its gap is as long as the step. What was measured tells how long that is.
"""

import asyncio
import time
from collections import deque
from collections.abc import Callable, Generator
from contextlib import AbstractContextManager, contextmanager

from domains.device.devices import Devices
from domains.processing.workers.worker import Report, Worker
from domains.progress import STEPPING, Progressed, Stage, StageStarted

_TIMES_USUAL = 3.0
"""Multiple of the expected gap, after which a gap is unusual; but never later than `least_s` after its expected end."""
_KEPT_GAPS = 16
"""Newest gaps of a stage. The usual gap is the second longest of them, so that one hang does not become usual."""

Watch = AbstractContextManager[Callable[[Report], None]]
"""Watches a job's order until exit; yields the function to call with each of its reports."""


class _Work:
    """The orders of jobs that one worker carries out."""

    def __init__(self, worker: Worker, now_s: float) -> None:
        self.worker = worker
        self.stages: dict[str, Stage] = {}
        """Present stage by job; QUEUED before the first report."""
        self.step_s: dict[str, float] = {}
        """Estimated time of a step by job, where one is known."""
        self.last_s = now_s
        """Time of the last sign of life."""
        self.silent = False
        self.timer: asyncio.TimerHandle | None = None


class Silences:
    """Measures the gaps between signs of life, and tells the devices when one is too long. One event loop."""

    def __init__(self, devices: Devices, least_s: float, clock: Callable[[], float] = time.monotonic) -> None:
        """`least_s`: no shorter gap is a silence, and no silence is told later than this after the expected sign of life."""
        self._devices = devices
        self._least_s = least_s
        self._clock = clock
        self._work: dict[str, _Work] = {}
        """By device."""
        self._gaps: dict[tuple[str, Stage], deque[float]] = {}
        """Newest gaps that a sign of life has ended, by device and stage."""

    @contextmanager
    def watching(self, worker: Worker, job_id: str, step_s: float | None = None) -> Generator[Callable[[Report], None]]:
        """Watch a job's order until exit. Yields the function to call with each of its reports. `step_s`: estimated time of
        a step without a sign of life; None: not known, or each step shows life inside."""
        device_id = worker.device.id
        work = self._work.get(device_id)
        if work is None or work.worker is not worker:
            if work is not None and work.timer is not None:
                work.timer.cancel()
            work = self._work[device_id] = _Work(worker, self._clock())
        work.stages[job_id] = Stage.QUEUED
        if step_s is not None:
            work.step_s[job_id] = step_s
        self.judge(device_id)
        try:
            yield lambda report: self._moved(work, job_id, report)
        finally:
            self._leave(work, job_id)

    def judge(self, device_id: str) -> None:
        """Tell the devices if the device is silent now; else judge again when it would be."""
        work = self._work[device_id]
        if work.timer is not None:
            work.timer.cancel()
        limit_s = self._limit_s(device_id, work)
        rest_s = limit_s - (self._clock() - work.last_s)
        if rest_s > 0:
            work.timer = asyncio.get_running_loop().call_later(rest_s, self.judge, device_id)
        elif not work.silent:
            work.silent = True
            self._devices.silent(device_id, self._why(device_id, work, limit_s))

    def _moved(self, work: _Work, job_id: str, report: Report) -> None:
        device_id, now = work.worker.device.id, self._clock()
        # The report ends a gap in the stage before it.
        key = device_id, work.stages[job_id]
        self._gaps.setdefault(key, deque(maxlen=_KEPT_GAPS)).append(now - work.last_s)
        work.last_s = now
        if isinstance(report, StageStarted | Progressed) and report.stage is not work.stages[job_id]:
            work.stages[job_id] = report.stage
            self.judge(device_id)
        if work.silent:
            work.silent = False
            self._devices.silent(device_id, "")
            self.judge(device_id)

    def _leave(self, work: _Work, job_id: str) -> None:
        device_id = work.worker.device.id
        del work.stages[job_id]
        work.step_s.pop(job_id, None)
        if work.stages or self._work.get(device_id) is not work:
            return
        # A device that is silent now stays so until its worker has ended: no report came.
        del self._work[device_id]
        if work.timer is not None:
            work.timer.cancel()

    def _limit_s(self, device_id: str, work: _Work) -> float:
        """The worker has one thread: each of its jobs may be blocked behind the slowest stage of the others."""
        expected_s = max(self._usual_s(device_id, work) or 0.0, self._steps_s(work))
        return max(self._least_s, min(_TIMES_USUAL * expected_s, expected_s + self._least_s))

    def _usual_s(self, device_id: str, work: _Work) -> float | None:
        """The longest usual gap of the work's stages. None: none was measured."""
        gaps = (self._gaps.get((device_id, stage), ()) for stage in set(work.stages.values()))
        return max((sorted(each)[-2] for each in gaps if len(each) > 1), default=None)

    def _steps_s(self, work: _Work) -> float:
        """Estimated time in which each job that denoises takes one step. Jobs that share a forward take less."""
        return sum(work.step_s.get(job_id, 0.0) for job_id, stage in work.stages.items() if stage in STEPPING)

    def _why(self, device_id: str, work: _Work, limit_s: float) -> str:
        doing = ", ".join(f"{job_id} ({stage})" for job_id, stage in work.stages.items())
        usual_s, steps_s = self._usual_s(device_id, work), self._steps_s(work)
        told = "no usual gap was measured" if usual_s is None else f"the usual gap is {usual_s:.3g} s"
        if steps_s:
            told += f", steps are estimated to take {steps_s:.3g} s"
        return f"no sign of life for {limit_s:.3g} s from {doing}; {told}"
