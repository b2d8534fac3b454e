"""Forecasts how long a generation runs once its model is loaded, from generations that were measured.

The denoising is the measured step times the number of computed steps. `pixel_costs` says how everything else (prompts, the
picture to start from, decoding, the file) grows with the pictures.
"""

from collections import defaultdict, deque
from collections.abc import Iterable
from statistics import median

import msgspec

from domains.inference.generation import ResolvedGeneration
from domains.inference.pass_plan import largest_px, passes_of
from domains.processing.devices.pixel_costs import Shape, seconds_for
from domains.processing.devices.step_times import StepTimes
from domains.processing.jobs.job import Job
from domains.processing.jobs.jobs import Jobs
from domains.processing.jobs.kinds import GenerateWork
from domains.processing.jobs.state import JobState
from domains.processing.lanes.lanes import Lanes
from domains.progress import ONCE, STEPPING

_REMEMBERED = 20
"""Newest runs kept per model and device. The range of 20 runs contains the next run nine times in ten."""
_FEWEST = 3
"""Fewer runs give no range."""
_NOT_RUN = (*ONCE, *STEPPING)


class RunForecast(msgspec.Struct, frozen=True, kw_only=True):
    """Seconds that a generation runs, without the load of its model. None: not known."""

    run_s: float | None
    low_s: float | None
    high_s: float | None
    sample_count: int
    """Number of measured runs that the forecast rests on."""


NOTHING_MEASURED = RunForecast(run_s=None, low_s=None, high_s=None, sample_count=0)


class RunTimes:
    """Listens to the ends of generations. Kept in memory: after a restart nothing is measured."""

    def __init__(self, jobs: Jobs, lanes: Lanes, steps: StepTimes) -> None:
        self._lanes = lanes
        self._steps = steps
        self._rest: defaultdict[tuple[str, str], deque[tuple[Shape, float]]] = defaultdict(
            lambda: deque(maxlen=_REMEMBERED)
        )
        """By device and model: seconds outside of the steps, with the pictures that were made."""
        self._ratios: defaultdict[tuple[str, str], deque[float]] = defaultdict(lambda: deque(maxlen=_REMEMBERED))
        """By device and model: measured time divided by forecast time."""
        jobs.listeners.append(self._note)

    def forecast(self, device_id: str, resolved: ResolvedGeneration) -> RunForecast:
        """The time of a generation that has the device to itself."""
        key = device_id, resolved.runs_as
        first, *others = passes_of(resolved)
        step, rest = self._steps.estimate(device_id, first.resolved), self._rest.get(key)
        if step is None or not rest:
            return NOTHING_MEASURED
        later = [(one, self._steps.estimate(device_id, one.resolved)) for one in others]
        run_s = step.seconds * first.resolved.computed_steps + _rest_s(rest, _shape(resolved))
        run_s += sum(found.seconds * one.resolved.computed_steps for one, found in later if found is not None)
        if resolved.detail_passes:
            # How much is found in the pictures, they alone tell.
            return RunForecast(run_s=None, low_s=run_s, high_s=None, sample_count=len(rest))
        if step.at_least or any(found is None or found.at_least for _, found in later):
            return RunForecast(run_s=None, low_s=run_s, high_s=None, sample_count=len(rest))
        ratios = self._ratios.get(key, ())
        known = len(ratios) >= _FEWEST
        return RunForecast(
            run_s=run_s,
            low_s=run_s * min(1.0, *ratios) if known else None,
            high_s=run_s * max(1.0, *ratios) if known else None,
            sample_count=len(rest),
        )

    def _note(self, job: Job) -> None:
        if job.state is not JobState.SUCCEEDED or not isinstance(job.work, GenerateWork) or job.receipt is None:
            return
        lane = self._lanes.with_job(job.id)
        if job.attempt != 1 or lane is None or job.id in lane.shared:
            # Its stages waited for other jobs.
            return
        if len(passes_of(job.work.resolved)) > 1 or job.work.resolved.detail_passes:
            # Enlarging takes time too, so the time outside of the steps does not give the time of a pixel.
            return
        resolved, timings = job.work.resolved, job.receipt.work.timings
        key = job.device_id, resolved.runs_as
        before = self.forecast(job.device_id, resolved).run_s
        rest_s = sum(one.wall_s for one in timings if one.stage not in _NOT_RUN)
        self._rest[key].append((_shape(resolved), rest_s))
        if before:
            ran_s = sum(one.wall_s for one in timings if one.stage not in ONCE)
            self._ratios[key].append(ran_s / before)


def _shape(resolved: ResolvedGeneration) -> Shape:
    width_px, height_px = largest_px(resolved)
    return Shape(len(resolved.seeds), width_px * height_px)


def _rest_s(measured: Iterable[tuple[Shape, float]], shape: Shape) -> float:
    """The usual time outside of the steps."""
    by_shape = defaultdict[Shape, list[float]](list)
    for one, took_s in measured:
        by_shape[one].append(took_s)
    usual = {one: took_s for one, some in by_shape.items() if (took_s := median(some)) > 0}
    return seconds_for(shape, usual) if usual else 0.0
