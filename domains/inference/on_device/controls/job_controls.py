"""What guides one job beside its prompt, and when."""

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from domains.inference.controls import ControlBalance
from domains.inference.on_device.controls.guiding_net import GuidingNet
from domains.inference.on_device.rows import RowConditions


@dataclass(frozen=True, kw_only=True, eq=False)
class JobControl:
    """One ControlNet of a job, with what it reads in all steps."""

    net: GuidingNet
    conditions: RowConditions
    """What it reads of the prompt, or of the first of those that guide together."""
    others: Sequence["JobControl"] = ()
    """The same control with what it reads of each further one."""
    hint: Tensor
    """(1, …): what it reads of the control map."""
    weight: float
    balance: ControlBalance
    steps: range
    """The steps in which it counts, from 0."""
    region: Tensor | None = None
    """(1, 1, h, w), 0..1: where it counts. None: everywhere."""

    def tensors(self) -> Sequence[Tensor]:
        """The device tensors that it holds for the job alone."""
        prompts = [tensor for one in (self, *self.others) for tensor in one.conditions.tensors()]
        return [*prompts, self.hint, *([] if self.region is None else [self.region])]

    def of_prompt(self, place: int) -> "JobControl":
        """The control as the rows of one of the prompts read it that guide together, from 0. Always the same object."""
        return self.others[place - 1] if place else self


@dataclass(frozen=True, kw_only=True, eq=False)
class Controls:
    """All controls of a job."""

    all: Sequence[JobControl] = ()

    def at(self, step: int) -> Sequence[JobControl]:
        """Those that count in a step, counted from 0."""
        return [one for one in self.all if step in one.steps]

    def tensors(self) -> Sequence[Tensor]:
        """The device tensors that they hold for the job alone."""
        return [tensor for one in self.all for tensor in one.tensors()]


NO_CONTROLS = Controls()
