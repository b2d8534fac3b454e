"""Counts the jobs of each device, and derives from the last minute how busy it is."""

import time
from collections import defaultdict, deque
from collections.abc import Callable, Sequence

import msgspec

from domains.device.status import Workload
from domains.measurement import LatencySummary

WINDOW_S = 60.0
_ENOUGH = 3
"""Run times needed before an estimate is made."""
_REMEMBERED = 32
"""Newest run times that an estimate uses; they do not expire, because a device may be idle for long."""


class Ended(msgspec.Struct, frozen=True, kw_only=True):
    """A job that ended."""

    at_s: float
    took_s: float
    failed: bool


class WorkloadMeter:
    """Counts jobs as the dispatcher starts and ends them. One event loop."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._running: defaultdict[str, dict[str, float]] = defaultdict(dict)
        """Start times of the running jobs by device."""
        self._ended: defaultdict[str, deque[Ended]] = defaultdict(deque)
        self._run_times: defaultdict[str, deque[float]] = defaultdict(lambda: deque(maxlen=_REMEMBERED))

    def started(self, device_id: str, job_id: str) -> None:
        """Record that a job starts on a device. A repeated call changes nothing."""
        self._running[device_id].setdefault(job_id, self._clock())

    def ended(self, device_id: str, job_id: str, *, failed: bool) -> None:
        """Record that a job ended on a device. A job that was not recorded as started does not count."""
        began = self._running[device_id].pop(job_id, None)
        if began is None:
            return
        now = self._clock()
        self._ended[device_id].append(Ended(at_s=now, took_s=now - began, failed=failed))
        if not failed:
            self._run_times[device_id].append(now - began)
        self._recent(device_id)

    def left(self, device_id: str, job_id: str) -> None:
        """Record that a job left a device without an end: preempted, interrupted or moved to another device."""
        self._running[device_id].pop(job_id, None)

    def running(self, device_id: str) -> tuple[str, ...]:
        """Ids of the jobs that run on a device."""
        return tuple(self._running[device_id])

    def workload(self, device_id: str, queued: int = 0, width: int = 1) -> Workload:
        """The workload now. `queued`: queued jobs that could run there; `width`: number of concurrent jobs, at least 1."""
        recent = self._recent(device_id)
        return Workload(
            running_job_ids=self.running(device_id),
            queued_count=queued,
            estimated_idle_s=self._idle_in(device_id, queued, width),
            jobs_per_s=len(recent) / WINDOW_S,
            error_ratio=sum(one.failed for one in recent) / len(recent) if recent else None,
            run_time=LatencySummary.of([one.took_s for one in recent]),
        )

    def _recent(self, device_id: str) -> Sequence[Ended]:
        ended, oldest = self._ended[device_id], self._clock() - WINDOW_S
        while ended and ended[0].at_s <= oldest:
            ended.popleft()
        return ended

    def _idle_in(self, device_id: str, queued: int, width: int) -> float | None:
        # Jobs that share a device take longer each, and their run times include that: hence the division.
        running, known = self._running[device_id], self._run_times[device_id]
        if not running and not queued:
            return 0.0
        if len(known) < _ENOUGH:
            return None
        now = self._clock()
        rests = [_rest(known, now - began) for began in running.values()]
        estimates = [rest for rest in rests if rest is not None]
        if len(estimates) < len(rests):
            return None
        waiting = queued * sum(known) / len(known)
        return max([(sum(estimates) + waiting) / width, *estimates])


def _rest(known: Sequence[float], elapsed_s: float) -> float | None:
    """Mean remaining time of a job after `elapsed_s`, from longer run times. None: no run time was longer."""
    longer = [took - elapsed_s for took in known if took >= elapsed_s]
    return sum(longer) / len(longer) if longer else None
