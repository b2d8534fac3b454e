"""Computes the completed ratio and the remaining time of a job, from its own progress alone."""

import time
from collections.abc import Callable, Mapping

from domains.processing.jobs.event import JobProgress
from domains.progress import STEPPING, Progressed, Stage

_AFTER_STEPS = 1
"""The work after the last step (decoding, encoding) counts as this many steps in `completed_ratio`, so that a job
with all steps done is not complete yet."""

_BETWEEN = (Stage.CONDITIONING, Stage.ENCODING_INPUT, Stage.COMPILING, Stage.ENLARGING)
"""Stages whose own progress says nothing about a job with several passes."""


class ProgressRate:
    """The rate of one attempt."""

    def __init__(
        self,
        clock: Callable[[], float] = time.monotonic,
        steps: Mapping[Stage, int] | None = None,
        *,
        finds: bool = False,
    ) -> None:
        """`steps`: the denoising steps of each pass, in their order, of a job that has several. `finds`: whether steps
        follow whose number is not known before a detector has seen the pictures."""
        self._clock = clock
        self._steps = steps or {}
        self._finds = finds
        self._begin_s = clock()
        self._stage: Stage | None = None
        self._stage_first: tuple[float, int] = (0.0, 0)
        self._ratio = 0.0

    def at(self, progress: Progressed) -> JobProgress:
        """The progress with its rate. `completed_ratio` never falls."""
        now = self._clock()
        if progress.stage is not self._stage:
            self._stage = progress.stage
            self._stage_first = (now, progress.completed)
        rate = self._rate(now, progress.completed)
        left = progress.total - progress.completed if progress.total else None
        return JobProgress(
            at=progress,
            elapsed_s=now - self._begin_s,
            completed_ratio=self._whole(progress),
            rate_per_s=rate,
            remaining_s=left / rate if rate and left is not None else None,
        )

    def _rate(self, now: float, completed: int) -> float | None:
        first_s, first = self._stage_first
        return (completed - first) / (now - first_s) if completed > first and now > first_s else None

    def _whole(self, progress: Progressed) -> float | None:
        if progress.total <= 0 or progress.stage is Stage.LOADING:
            return None
        completed, total = progress.completed, progress.total
        if self._finds and progress.stage is not Stage.ENCODING:
            if progress.stage is not Stage.DETAILING:
                return None
            before = sum(self._steps.values())
            completed, total = before + completed, before + total
        if len(self._steps) > 1 and progress.stage in (*self._steps, *_BETWEEN):
            completed, total = self._of_all_passes(progress)
        after = _AFTER_STEPS if progress.stage in STEPPING else 0
        self._ratio = max(self._ratio, min(1.0, completed / (total + after)))
        return self._ratio

    def _of_all_passes(self, progress: Progressed) -> tuple[int, int]:
        """The completed steps of all passes, and their number."""
        stages = [*self._steps]
        if progress.stage not in self._steps:
            return 0, sum(self._steps.values())
        before = sum(self._steps[stage] for stage in stages[: stages.index(progress.stage)])
        return before + progress.completed, sum(self._steps.values())
