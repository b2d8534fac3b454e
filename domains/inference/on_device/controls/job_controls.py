"""What guides one job beside its prompt, and when."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

from torch import Tensor

from domains.inference.controls import ControlBalance
from domains.inference.on_device.controls.guiding_net import GuidingNet
from domains.inference.on_device.rows import RowConditions


@dataclass(frozen=True, kw_only=True, eq=False)
class JobControl:
    """One forward of a ControlNet of a job, with what it reads in steps of the same prompts."""

    net: GuidingNet
    conditions: RowConditions
    """What it reads of the prompt, or of the first of those that guide together."""
    others: Sequence["JobControl"] = ()
    """The same control with what it reads of each further one."""
    hint: Tensor
    """(1, …): what it reads of the control map, or of all that it reads together."""
    weight: float
    balance: ControlBalance
    region: Tensor | None = None
    """(1, 1, h, w), 0..1: where it counts. None: everywhere."""

    def tensors(self) -> Sequence[Tensor]:
        """The device tensors that it holds for the job alone."""
        prompts = [tensor for one in (self, *self.others) for tensor in one.conditions.tensors()]
        return [*prompts, self.hint, *([] if self.region is None else [self.region])]

    def reading(self, conditions: Sequence[RowConditions]) -> "JobControl":
        """The control with the conditions of each of the prompts that guide together."""
        alone = replace(self, conditions=conditions[0], others=())
        return replace(alone, others=[replace(alone, conditions=more) for more in conditions[1:]])

    def of_prompt(self, place: int) -> "JobControl":
        """The control as the rows of one of the prompts read it that guide together, from 0. Always the same object."""
        return self.others[place - 1] if place else self


class ReadLater(NamedTuple):
    """How a network reads prompts that change between steps."""

    variant: Callable[[int], int]
    """Which prompts count in a step."""
    conditions: Callable[[int], Sequence[RowConditions]]
    """What it reads in a step, of each of the prompts that guide together."""


class ControlInSteps:
    """One ControlNet of a job in all its steps. What it reads of prompts that change is computed when their steps come."""

    def __init__(self, steps: range, first: JobControl, later: ReadLater | None) -> None:
        """`steps`: those in which it counts, from 0. `first`: the control in the first of them. `later` None: it reads the
        same in all."""
        self.steps = steps
        self._later = later
        self._kept = {0 if later is None else later.variant(steps.start): first}
        """By variant, the last one at the end."""

    def at(self, step: int) -> JobControl:
        """The control in a step. The same object as in the step before, if the prompts are the same."""
        (*_, last) = self._kept.values()
        if self._later is None:
            return last
        variant = self._later.variant(step)
        found = self._kept.pop(variant, None) or last.reading(self._later.conditions(step))
        # Two prompts that take turns are read once.
        self._kept = {**dict([*self._kept.items()][-1:]), variant: found}
        return found

    def tensors(self) -> Sequence[Tensor]:
        """The device tensors that it holds for the job alone."""
        return [tensor for one in self._kept.values() for tensor in one.tensors()]


@dataclass(frozen=True, kw_only=True, eq=False)
class Controls:
    """All controls of a job."""

    all: Sequence[ControlInSteps] = ()

    def at(self, step: int) -> Sequence[JobControl]:
        """Those that count in a step, counted from 0."""
        return [one.at(step) for one in self.all if step in one.steps]

    def tensors(self) -> Sequence[Tensor]:
        """The device tensors that they hold for the job alone."""
        return [tensor for one in self.all for tensor in one.tensors()]


NO_CONTROLS = Controls()
