"""Measures one job for its receipt."""

import sys
import time

import psutil

from domains.progress import Degraded, Receipt, Stage, StageTiming


class Meter:
    """Stages, steps and peaks of a job."""

    def __init__(self) -> None:
        self.steps_executed = 0
        self.cache_hits = 0
        self.degradations: list[Degraded] = []
        self.peak_device_bytes: int | None = None
        self._wall: dict[Stage, float] = {}
        self._device: dict[Stage, float] = {}
        self._stage: Stage | None = None
        self._since = time.perf_counter()

    def enter(self, stage: Stage) -> None:
        """Go from one stage to the next."""
        self._close()
        self._stage = stage
        self._wall.setdefault(stage, 0.0)

    def device_was_busy(self, stage: Stage, seconds: float | None) -> None:
        """Add device time of finished work; None: not measurable."""
        if seconds is not None:
            self._device[stage] = self._device.get(stage, 0.0) + seconds

    def device_peak(self, allocated: int | None) -> None:
        """Record a high-water mark of the allocator, in bytes; the largest one counts. None: not measurable."""
        if allocated is not None:
            self.peak_device_bytes = max(allocated, self.peak_device_bytes or 0)

    def receipt(self) -> Receipt:
        """The measurements up to now."""
        self._close()
        return Receipt(
            timings=tuple(
                StageTiming(stage=stage, wall_s=wall, device_s=self._device.get(stage))
                for stage, wall in self._wall.items()
            ),
            peak_device_bytes=self.peak_device_bytes,
            peak_host_bytes=_peak_host_bytes(),
            steps_executed=self.steps_executed,
            cache_hits=self.cache_hits,
            degradations=tuple(self.degradations),
        )

    def _close(self) -> None:
        now = time.perf_counter()
        if self._stage is not None:
            self._wall[self._stage] += now - self._since
        self._since = now


def _peak_host_bytes() -> int | None:
    """The process's largest resident set so far."""
    if sys.platform == "win32":
        return psutil.Process().memory_info().peak_wset
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
