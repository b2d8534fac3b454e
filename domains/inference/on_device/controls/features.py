"""T2I adapters (Mou et al. 2023): features of a control map that a U-Net adds on its way down, the same in all steps."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from torch import Tensor

from domains.inference.controls import ControlBalance
from domains.inference.on_device.controls.control_net import resized
from domains.inference.on_device.controls.guiding_net import growing_shares
from domains.inference.on_device.rows import Rows
from domains.model.on_device import picture_layout


@dataclass(frozen=True, kw_only=True, eq=False)
class JobFeatures:
    """One T2I adapter of a job, with what it found in the control map."""

    levels: Sequence[Tensor]
    """(1, channels, h, w) for each level of the U-Net, from above; another one is for the middle."""
    weight: float
    balance: ControlBalance
    steps: range
    """The steps in which it counts, from 0."""
    region: Tensor | None = None
    """(1, 1, h, w), 0..1: where it counts. None: everywhere."""

    def tensors(self) -> Sequence[Tensor]:
        """The device tensors that it holds."""
        return [*self.levels, *([] if self.region is None else [self.region])]

    def weighted(self, level: int, *, with_prompt: bool) -> Tensor | None:
        """A feature as it counts in the row with the prompt, or in that without it. None: not at all."""
        if level >= len(self.levels) or (self.balance is ControlBalance.CONTROL and not with_prompt):
            return None
        feature, shares = self.levels[level], growing_shares(len(self.levels))
        even = self.balance is ControlBalance.EVEN
        found = feature * (self.weight * (1.0 if even else float(shares[level])))
        return found if self.region is None else found * resized(self.region, found)


@dataclass(frozen=True, kw_only=True, eq=False)
class Features:
    """All T2I adapters of a job."""

    all: Sequence[JobFeatures] = ()

    def at(self, step: int) -> Sequence[JobFeatures]:
        """Those that count in a step, counted from 0."""
        return [one for one in self.all if step in one.steps]

    def tensors(self) -> Sequence[Tensor]:
        """The device tensors that they hold."""
        return [tensor for one in self.all for tensor in one.tensors()]


NO_FEATURES = Features()


class Owner(NamedTuple):
    """A job of a group."""

    pictures: slice
    """Its pictures among those of the group."""
    guided: bool
    features: Sequence[JobFeatures]


class GroupFeatures:
    """The features of a group of jobs in one step. Steps with the same ones share it."""

    def __init__(self, owners: Sequence[Owner], layout: Rows) -> None:
        """`owners`: guided ones first, as the rows stand."""
        self._of = [owner.features for owner in owners]
        self.levels = [_level(level, owners, layout) for level in range(_count(owners))]
        """(rows, channels, h, w) for each level."""

    def of_these(self, features: Sequence[Sequence[JobFeatures]]) -> bool:
        """Whether it was made for these."""
        return self._of == features

    @property
    def held_bytes(self) -> int:
        """Bytes of what it keeps beside the jobs' own tensors."""
        return sum(level.nbytes for level in self.levels)


def _count(owners: Sequence[Owner]) -> int:
    return max(len(one.levels) for owner in owners for one in owner.features)


def _level(level: int, owners: Sequence[Owner], layout: Rows) -> Tensor:
    like = next(one.levels[level] for owner in owners for one in owner.features if level < len(one.levels))
    found = like.new_zeros((layout.total, *like.shape[1:]))
    for owner in owners:
        *without, with_prompt = layout.of(owner.pictures, guided=owner.guided)
        for rows, prompted in ((with_prompt, True), *((one, False) for one in without)):
            for one in owner.features:
                if (feature := one.weighted(level, with_prompt=prompted)) is not None:
                    found[rows] += feature
    return found.contiguous(memory_format=picture_layout(found.device))
