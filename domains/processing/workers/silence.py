"""Notices silent devices: their running work shows no sign of life for longer than is usual.

A silent device is DEGRADED until its next sign of life. `stall_limit` ends its worker if that does not come.
"""

import asyncio
import time
from collections import deque
from collections.abc import Callable, Generator
from contextlib import contextmanager

from domains.device.devices import Devices
from domains.processing.workers.worker import Report, Worker
from domains.progress import Progressed, Stage, StageStarted

_TIMES_USUAL = 3.0
"""Multiple of the usual gap of a stage, after which the next gap is unusual."""
_KEPT_GAPS = 16
"""Newest gaps of a stage. The usual gap is the second longest of them, so that one hang does not become usual."""


class _Work:
    """The orders of jobs that one worker carries out."""

    def __init__(self, worker: Worker, now_s: float) -> None:
        self.worker = worker
        self.stages: dict[str, Stage] = {}
        """Present stage by job; QUEUED before the first report."""
        self.last_s = now_s
        """Time of the last sign of life."""
        self.silent = False
        self.timer: asyncio.TimerHandle | None = None


class Silences:
    """Measures the gaps between signs of life, and tells the devices when one is too long. One event loop."""

    def __init__(self, devices: Devices, least_s: float, clock: Callable[[], float] = time.monotonic) -> None:
        """`least_s`: no shorter gap is a silence."""
        self._devices = devices
        self._least_s = least_s
        self._clock = clock
        self._work: dict[str, _Work] = {}
        """By device."""
        self._gaps: dict[tuple[str, Stage], deque[float]] = {}
        """Newest gaps that a sign of life has ended, by device and stage."""

    @contextmanager
    def watching(self, worker: Worker, job_id: str) -> Generator[Callable[[Report], None]]:
        """Watch a job's order until exit. Yields the function to call with each of its reports."""
        device_id = worker.device.id
        work = self._work.get(device_id)
        if work is None or work.worker is not worker:
            if work is not None and work.timer is not None:
                work.timer.cancel()
            work = self._work[device_id] = _Work(worker, self._clock())
        work.stages[job_id] = Stage.QUEUED
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
        if work.stages or self._work.get(device_id) is not work:
            return
        # A device that is silent now stays so until its worker has ended: no report came.
        del self._work[device_id]
        if work.timer is not None:
            work.timer.cancel()

    def _limit_s(self, device_id: str, work: _Work) -> float:
        """The worker has one thread: each of its jobs may be blocked behind the slowest stage of the others."""
        return max(self._least_s, _TIMES_USUAL * max(self._usual(device_id, work), default=0.0))

    def _usual(self, device_id: str, work: _Work) -> list[float]:
        """The usual gap of each stage of the work that has one."""
        gaps = (self._gaps.get((device_id, stage), ()) for stage in set(work.stages.values()))
        return [sorted(each)[-2] for each in gaps if len(each) > 1]

    def _why(self, device_id: str, work: _Work, limit_s: float) -> str:
        doing = ", ".join(f"{job_id} ({stage})" for job_id, stage in work.stages.items())
        usual = self._usual(device_id, work)
        told = f"the usual gap is {max(usual):.3g} s" if usual else "no usual gap was measured"
        return f"no sign of life for {limit_s:.3g} s from {doing}; {told}"
