"""Measures how long a denoising step takes on each device, and estimates the step of other sizes.

`pixel_costs` says how a step grows, with rows of a forward and latent pixels. One measured size gives a lower bound: growth
with the pixels alone.
"""

import math
from collections import defaultdict

import msgspec

from domains.device.device import Device, DeviceKind
from domains.inference.generation import ResolvedGeneration
from domains.inference.guidance import default_guidance
from domains.inference.pass_plan import passes_of, redraws_of
from domains.model.families import FAMILIES
from domains.model.model import Model
from domains.processing.devices.pixel_costs import REACH, Shape, seconds_for
from domains.processing.jobs.job import Job
from domains.processing.jobs.jobs import Jobs
from domains.processing.jobs.kinds import GenerateWork
from domains.processing.jobs.state import JobState
from domains.processing.lanes.lanes import Lanes
from domains.progress import Stage

_LATENT_PX = 8
"""Pixels of the picture along one edge of a latent pixel."""
_REMEMBERED = 32
"""Shapes kept per model and device, those that were measured last."""


class StepEstimate(msgspec.Struct, frozen=True, kw_only=True):
    """The time of one step of a generation on a device."""

    seconds: float
    at_least: bool
    """Whether the step probably takes longer: only one size was measured, so that growth with n² is unknown."""


class StepTimes:
    """Listens to the ends of generations. Kept in memory: after a restart nothing is measured."""

    def __init__(self, jobs: Jobs, lanes: Lanes) -> None:
        self._lanes = lanes
        self._measured: defaultdict[tuple[str, str], dict[Shape, float]] = defaultdict(dict)
        """By device and model: the shortest step of each shape, in rows of latent pixels, the newest last. Other load can
        only lengthen a step."""
        jobs.listeners.append(self._note)

    def estimate(self, device_id: str, resolved: ResolvedGeneration) -> StepEstimate | None:
        """The step of a generation on a device. None: no step of its model was measured there."""
        return self._of(device_id, resolved.runs_as, _pixels(resolved.width_px, resolved.height_px), _rows(resolved))

    def silent_s(self, device: Device, work: object) -> float | None:
        """Estimated time of the work's longest step on a device that shows no sign of life inside steps. None: a CPU, which
        does, or no step of its model was measured there."""
        if device.kind is DeviceKind.CPU or not isinstance(work, GenerateWork):
            return None
        walks = [*(one.resolved for one in passes_of(work.resolved)), *redraws_of(work.resolved)]
        steps = [self.estimate(device.id, one) for one in walks]
        return max((one.seconds for one in steps if one is not None), default=None)

    def usual(self, device_id: str, model: Model, width_px: int, height_px: int, images: int) -> StepEstimate | None:
        """The step of a generation with the model's own guidance. None: as above."""
        if (device_id, model.id) not in self._measured:
            return None
        rows = _rows_at(images, model.family, default_guidance(model))
        return self._of(device_id, model.id, _pixels(width_px, height_px), rows)

    def _of(self, device_id: str, model_id: str, pixels: int, rows: int) -> StepEstimate | None:
        sizes = self._measured.get((device_id, model_id))
        if not sizes:
            return None
        measured = {shape.pixels for shape in sizes}
        seconds = seconds_for(Shape(rows, pixels), sizes)
        beyond = pixels > max(measured) * (1 if len(measured) == 1 else REACH)
        return StepEstimate(seconds=seconds, at_least=beyond)

    def _note(self, job: Job) -> None:
        if job.state is not JobState.SUCCEEDED or not isinstance(job.work, GenerateWork) or job.receipt is None:
            return
        if job.work.resolved.detail_passes:
            return  # How many of the steps made finds again is not known here.
        passes, steps = passes_of(job.work.resolved), job.receipt.work.steps_executed
        if job.attempt != 1 or (len(passes) > 1 and steps != sum(one.resolved.computed_steps for one in passes)):
            return
        for one in passes:
            executed = steps if len(passes) == 1 else one.resolved.computed_steps
            step_s, resolved = self._device_s(job, one.stage), one.resolved
            if step_s and executed:
                sizes = self._measured[job.device_id, resolved.runs_as]
                shape = Shape(_rows(resolved), _pixels(resolved.width_px, resolved.height_px))
                known_s = sizes.pop(shape, math.inf)
                sizes[shape] = min(step_s / executed, known_s)
                while len(sizes) > _REMEMBERED:
                    del sizes[next(iter(sizes))]

    def _device_s(self, job: Job, stage: Stage) -> float | None:
        """Seconds that the device spent on a pass's steps. None: not known, because other jobs shared the device."""
        assert job.receipt is not None
        timing = next((one for one in job.receipt.work.timings if one.stage is stage), None)
        if timing is None or timing.device_s is not None:
            return timing and timing.device_s
        lane = self._lanes.with_job(job.id)
        return None if lane is None or job.id in lane.shared else timing.wall_s


def _pixels(width_px: int, height_px: int) -> int:
    return (width_px // _LATENT_PX) * (height_px // _LATENT_PX)


def _rows(resolved: ResolvedGeneration) -> int:
    seen = resolved.image_guidance_scale is not None and bool(resolved.references)
    return _rows_at(len(resolved.seeds), resolved.family, resolved.guidance_scale, seen=seen)


def _rows_at(images: int, family: str, guidance: float, *, seen: bool = False) -> int:
    """Batch rows of one forward pass. Each picture takes one, two with guidance, three if a picture guides too."""
    return images * ((3 if seen else 2) if FAMILIES[family].reads_negative(guidance) else 1)
