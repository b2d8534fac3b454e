"""Counts the jobs of each device, and tells from the last minute how busy it is."""

import time
from collections import defaultdict, deque
from collections.abc import Callable, Sequence

import msgspec

from domains.device.status import Workload
from domains.measurement import LatencySummary

WINDOW_S = 60.0
_ENOUGH = 3
"""Jobs that must have ended before their run times say anything about the next."""
_REMEMBERED = 32
"""Run times that an estimate is made from; unlike the window they do not grow old, because a device may rest for long."""


class Ended(msgspec.Struct, frozen=True, kw_only=True):
    """A job that ended."""

    at_s: float
    took_s: float
    failed: bool


class WorkloadMeter:
    """Whoever runs jobs tells it when one begins and ends; nothing is polled. One event loop."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._running: defaultdict[str, dict[str, float]] = defaultdict(dict)
        """By device: when each job began."""
        self._ended: defaultdict[str, deque[Ended]] = defaultdict(deque)
        self._run_times: defaultdict[str, deque[float]] = defaultdict(lambda: deque(maxlen=_REMEMBERED))

    def started(self, device_id: str, job_id: str) -> None:
        """A job begins to run on a device. Told twice, the first time counts."""
        self._running[device_id].setdefault(job_id, self._clock())

    def ended(self, device_id: str, job_id: str, *, failed: bool) -> None:
        """A job came to its end there. One that was not known to run has no run time and does not count."""
        began = self._running[device_id].pop(job_id, None)
        if began is None:
            return
        now = self._clock()
        self._ended[device_id].append(Ended(at_s=now, took_s=now - began, failed=failed))
        if not failed:
            self._run_times[device_id].append(now - began)
        self._recent(device_id)

    def left(self, device_id: str, job_id: str) -> None:
        """A job runs there no longer and has not ended: preempted, interrupted, moved to another device."""
        self._running[device_id].pop(job_id, None)

    def running(self, device_id: str) -> tuple[str, ...]:
        """Ids of the jobs that run there."""
        return tuple(self._running[device_id])

    def workload(self, device_id: str, queued: int = 0, width: int = 1) -> Workload:
        """As it is now. `queued`: jobs that wait and could run there; `width`: how many it works on at once."""
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
        # Jobs that share a device take longer each, which their run times have in them already: hence the division.
        running, known = self._running[device_id], self._run_times[device_id]
        if not running and not queued:
            return 0.0
        if len(known) < _ENOUGH:
            return None
        now = self._clock()
        rests = [_rest(known, now - began) for began in running.values()]
        told = [rest for rest in rests if rest is not None]
        if len(told) < len(rests):
            return None
        waiting = queued * sum(known) / len(known)
        return max((sum(told) + waiting) / max(1, width), *told, 0.0)


def _rest(known: Sequence[float], elapsed_s: float) -> float | None:
    """How much longer those took that took longer than this. None: it takes longer than any before, so nobody can say."""
    longer = [took - elapsed_s for took in known if took >= elapsed_s]
    return sum(longer) / len(longer) if longer else None
