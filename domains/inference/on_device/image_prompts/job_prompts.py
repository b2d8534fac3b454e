"""The pictures that guide one job through IP-Adapters, and when."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Protocol

from torch import Tensor

from domains.inference.on_device.areas import Area
from domains.inference.on_device.cross_reads import KeysValues, Norms


class TimedKeys(Protocol):
    """What layers read of pictures in each step otherwise."""

    def at(self, timestep: Tensor) -> Sequence[KeysValues]:
        """What they read at a timestep (0-dim); see `JobImagePrompt.keys`."""
        ...

    def tensors(self) -> Sequence[Tensor]:
        """The device tensors that it holds for the job alone."""
        ...


@dataclass(frozen=True, kw_only=True, eq=False)
class JobImagePrompt:
    """One IP-Adapter of a job, with what each layer reads."""

    keys: Sequence[KeysValues] = ()
    """For each layer that reads pictures: (1 or 2 rows, …), that without the prompt first. The same in all steps, unless
    `timed`."""
    weights: Sequence[float]
    """For each layer."""
    steps: range
    """The steps in which it counts, from 0."""
    area: Area | None = None
    """Where it counts. None: everywhere."""

    norms: Sequence[Norms] = ()
    """For each layer, where latents read it together with their own keys and values. Empty: they do not."""
    timed: TimedKeys | None = None
    """None: `keys` count in all steps."""

    def now(self, timestep: Tensor) -> "JobImagePrompt":
        """The image prompt with its keys at a timestep (0-dim)."""
        return self if self.timed is None else replace(self, keys=self.timed.at(timestep))

    def tensors(self) -> Sequence[Tensor]:
        """The device tensors that it holds."""
        timed, area = (() if one is None else one.tensors() for one in (self.timed, self.area))
        return [*(one for pair in self.keys for one in pair), *timed, *area]


@dataclass(frozen=True, kw_only=True, eq=False)
class ImagePrompts:
    """All image prompts of a job."""

    all: Sequence[JobImagePrompt] = ()

    def at(self, step: int) -> Sequence[JobImagePrompt]:
        """Those that count in a step, counted from 0."""
        return [one for one in self.all if step in one.steps]

    def tensors(self) -> Sequence[Tensor]:
        """The device tensors that they hold."""
        return [tensor for one in self.all for tensor in one.tensors()]


NO_IMAGE_PROMPTS = ImagePrompts()
