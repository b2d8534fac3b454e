"""One forward for the rows of many jobs: each row with its own timestep and inputs, guided and unguided ones mixed."""

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any, cast
from weakref import ref

import torch
from torch import Tensor

from domains.inference.on_device.adapters import Share, beside
from domains.inference.on_device.controls import GroupControls, GroupFeatures, Member, Owner
from domains.inference.on_device.cross_reads import Beside
from domains.inference.on_device.families.family import KeepOn, StepRows
from domains.inference.on_device.group_reads import GroupReads, Reader
from domains.inference.on_device.rows import RowConditions, Rows, guided, in_rows, stacked
from domains.inference.on_device.to_device import to_device
from domains.inference.on_device.wrapping import wrapping

_TRAIN_STEPS = 1000


@dataclass(frozen=True, kw_only=True, eq=False)
class Batch:
    """The inputs of one forward. The order of rows is that of `rows`."""

    pictures: Tensor
    """(pictures, channels, h, w), float32: the latents."""
    picture_times: Tensor
    """(pictures,), or (1,) if it is the same for all; float32: the timesteps."""
    inputs: Sequence[Tensor]
    """Each (rows, …)."""
    controls: GroupControls | None = None
    """What guides the rows beside their inputs. None: nothing."""
    beside: Sequence[Sequence[Beside]] = ()
    """For each layer that reads prompts or pictures, what some rows read beside their inputs. Empty: nothing."""
    features: Sequence[Tensor] = ()
    """What T2I adapters add at each level of a U-Net, each (rows, …). Empty: nothing."""

    def residuals(self, latents: Tensor, keep_on: KeepOn, base: Any = None) -> Sequence[Any]:
        """What ControlNets add to a denoiser (`base`) that reads these latents: a tensor, or None, for each of its places.
        Empty: nothing."""
        return () if self.controls is None else self.controls.residuals(latents, self.picture_times, keep_on, base)

    @property
    def _rows(self) -> int:
        return self.inputs[0].shape[0]

    @property
    def latents(self) -> Tensor:
        """(rows, channels, h, w), float32."""
        return in_rows(self.pictures, self._rows)

    @property
    def timesteps(self) -> Tensor:
        """(rows,), float32."""
        times = self.picture_times
        return times.expand(self._rows) if len(times) == 1 else in_rows(times, self._rows)

    @property
    def times(self) -> Tensor:
        """(rows,), 0..1: the timesteps as flow transformers read them, which multiply by 1000 themselves."""
        return self.timesteps / _TRAIN_STEPS


Forward = Callable[[Batch], Tensor]
"""The model's output for each row, shaped like its latents."""


class Batches:
    """Computes forwards. Keeps what a group of jobs reads in every step for as long as the group stays the same."""

    def __init__(self) -> None:
        self._groups: dict[Hashable, _Group] = {}
        """By what is alike in a group."""

    def __call__(self, jobs: Sequence[StepRows], forward: Forward) -> list[Tensor]:
        """The output of each job, guidance applied, float32: one forward for all jobs whose tensors have the same shapes."""
        found: list[Tensor | None] = [None] * len(jobs)
        for alike, places in _alike(jobs).items():
            members = [jobs[place] for place in places]
            for place, output in zip(places, self._group(alike, members).outputs(members, forward), strict=True):
                found[place] = output
        return cast(list[Tensor], found)

    def held_bytes(self) -> int:
        """Bytes of what is kept for groups."""
        return sum(group.held_bytes for group in self._groups.values())

    def _group(self, alike: Hashable, jobs: Sequence[StepRows]) -> "_Group":
        known = self._groups.get(alike)
        if known is None or not known.is_of(jobs):
            # Dropped first, so that the memory is never held twice.
            self._groups.pop(alike, None)
            known = self._groups[alike] = _Group(jobs, lambda: self._groups.pop(alike, None))
        return known


class _Group:
    """Jobs whose rows are computed together, guided ones first, with their inputs one behind the other.

    Its tensors stay where they are, so that a captured forward can be replayed on them.
    """

    def __init__(self, jobs: Sequence[StepRows], drop: Callable[[], object]) -> None:
        """`drop` is called when the conditions of one of the jobs are gone, because the job has ended."""
        conditions = [_conditions(job) for job in jobs]
        self._members = [(ref(one, lambda _: drop()), _images(job)) for one, job in zip(conditions, jobs, strict=True)]
        self._images = [_images(job) for job in jobs]
        self._guided = sum(images for one, images in zip(conditions, self._images, strict=True) if one.guided)
        scales = [one.guidance for one, images in zip(conditions, self._images, strict=True) for _ in range(images)]
        device = jobs[0].latents.device
        self._inputs = [stacked(conditions, self._images, place) for place in range(len(conditions[0].inputs))]
        self._scales = _column(scales[: self._guided], device)
        rescales = [one.rescale for one, images in zip(conditions, self._images, strict=True) for _ in range(images)]
        self._rescales = _column(rescales[: self._guided], device)
        self._rescaled = any(rescales[: self._guided])
        self._alone = len(jobs) == 1
        self._shares = _shares(jobs, self._guided)
        shape = (0,) if self._alone else (sum(self._images), *jobs[0].latents.shape[1:])
        self._pictures = jobs[0].latents.new_empty(shape)
        self._times = jobs[0].timestep.new_empty(shape[:1])
        own = [one for one, theirs in zip(self._inputs, conditions[0].inputs, strict=True) if one is not theirs]
        self._own_bytes = sum(tensor.nbytes for tensor in (*own, self._scales, self._pictures, self._times))
        self._controls: GroupControls | None = None
        self._reads: GroupReads | None = None
        self._features: GroupFeatures | None = None

    @property
    def held_bytes(self) -> int:
        """Bytes of what it keeps beside the jobs' own tensors."""
        return self._own_bytes + sum(one.held_bytes for one in (self._controls, self._features) if one is not None)

    def is_of(self, jobs: Sequence[StepRows]) -> bool:
        """Whether these are the jobs, in this order."""
        members = [(one(), images) for one, images in self._members]
        return members == [(job.conditions, _images(job)) for job in jobs]

    def outputs(self, jobs: Sequence[StepRows], forward: Forward) -> Sequence[Tensor]:
        """Each job's output."""
        batch = Batch(
            pictures=self._joined(jobs),
            picture_times=self._timed(jobs),
            inputs=self._inputs,
            controls=self._controlled(jobs),
            beside=self._read_beside(jobs),
            features=self._featured(jobs),
        )
        height, width = jobs[0].latents.shape[2:]
        with beside(self._shares, (height, width)), wrapping(jobs[0].wraps):
            rows = forward(batch).float()
        return self._steered(rows).split(self._images)

    def _controlled(self, jobs: Sequence[StepRows]) -> GroupControls | None:
        """What guides the jobs in this step."""
        controls = [job.controls for job in jobs]
        if not any(controls):
            self._controls = None
        elif self._controls is None or not self._controls.of_these(controls):
            self._controls = None  # so that the memory is never held twice
            self._controls = GroupControls(self._members_of(jobs), Rows(self._guided, sum(self._images)))
        return self._controls

    def _members_of(self, jobs: Sequence[StepRows]) -> list[Member]:
        return [
            Member(place, _conditions(job).guided, job.controls)
            for place, job in zip(self._places(), jobs, strict=True)
        ]

    def _read_beside(self, jobs: Sequence[StepRows]) -> Sequence[Sequence[Beside]]:
        """What the jobs read in this step beside their prompts."""
        prompts = [[one.now(job.timestep) for one in job.image_prompts] for job in jobs]
        if not any(prompts) and not any(_conditions(job).regions for job in jobs):
            self._reads = None
        elif self._reads is None or not self._reads.of_these(prompts):
            readers = [
                Reader(place, _conditions(job).guided, shown, _conditions(job).regions)
                for place, job, shown in zip(self._places(), jobs, prompts, strict=True)
            ]
            self._reads = GroupReads(readers, Rows(self._guided, sum(self._images)))
        return () if self._reads is None else self._reads.layers

    def _featured(self, jobs: Sequence[StepRows]) -> Sequence[Tensor]:
        """What T2I adapters add in this step."""
        features = [job.features for job in jobs]
        if not any(features):
            self._features = None
        elif self._features is None or not self._features.of_these(features):
            self._features = None  # so that the memory is never held twice
            owners = [
                Owner(place, _conditions(job).guided, job.features)
                for place, job in zip(self._places(), jobs, strict=True)
            ]
            self._features = GroupFeatures(owners, Rows(self._guided, sum(self._images)))
        return () if self._features is None else self._features.levels

    def _places(self) -> Sequence[slice]:
        """The pictures of each job among those of the group."""
        ends = [*accumulate(self._images)]
        return [slice(end - images, end) for end, images in zip(ends, self._images, strict=True)]

    def _joined(self, jobs: Sequence[StepRows]) -> Tensor:
        if self._alone:
            return jobs[0].latents
        return torch.cat([job.latents for job in jobs], out=self._pictures)

    def _timed(self, jobs: Sequence[StepRows]) -> Tensor:
        if self._alone:
            return jobs[0].timestep.reshape(1)
        return torch.cat([job.timestep.expand(_images(job)) for job in jobs], out=self._times)

    def _steered(self, rows: Tensor) -> Tensor:
        """(pictures, channels, h, w)."""
        if not self._guided:
            return rows
        without, with_text, *others = rows.split(self._sections())
        steered = guided(without, with_text, self._scales, self._rescales if self._rescaled else None)
        return torch.cat([steered, *others]) if others else steered

    def _sections(self) -> list[int]:
        unguided = sum(self._images) - self._guided
        return [self._guided, self._guided, *([unguided] if unguided else [])]


def _alike(jobs: Sequence[StepRows]) -> dict[Hashable, list[int]]:
    """Places of jobs by what must be alike in a forward; guided jobs first."""
    places: dict[Hashable, list[int]] = {}
    for place, job in sorted(enumerate(jobs), key=lambda one: not _conditions(one[1]).guided):
        places.setdefault(job.alike, []).append(place)
    return places


def _shares(jobs: Sequence[StepRows], guided: int) -> Sequence[Share]:
    """The adapters of each job with its rows. `guided`: number of guided pictures."""
    if len(jobs) == 1 or not any(job.adapters.layers for job in jobs):
        return [Share(jobs[0].adapters)]
    pictures, shares, begin = sum(map(_images, jobs)), list[Share](), 0
    for job in jobs:
        end = begin + _images(job)
        own = [slice(begin, end)] if _conditions(job).guided else []
        rows = {pictures: [slice(begin, end)], guided + pictures: [*own, slice(guided + begin, guided + end)]}
        shares.append(Share(job.adapters, rows))
        begin = end
    return shares


def _column(numbers: Sequence[float], device: torch.device) -> Tensor:
    """(rows, 1, 1, 1), float32."""
    return to_device(torch.tensor(numbers, dtype=torch.float32), device).view(-1, 1, 1, 1)


def _conditions(job: StepRows) -> RowConditions:
    return cast(RowConditions, job.conditions)


def _images(job: StepRows) -> int:
    return job.latents.shape[0]
