"""The pictures that guide one job through IP-Adapters, and when."""

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from domains.inference.on_device.areas import Area
from domains.inference.on_device.cross_reads import KeysValues


@dataclass(frozen=True, kw_only=True, eq=False)
class JobImagePrompt:
    """One IP-Adapter of a job, with what each layer reads in all steps."""

    keys: Sequence[KeysValues]
    """For each layer that reads the text: (1 or 2 rows, …), that without the prompt first."""
    weights: Sequence[float]
    """For each layer."""
    steps: range
    """The steps in which it counts, from 0."""
    area: Area | None = None
    """Where it counts. None: everywhere."""

    def tensors(self) -> Sequence[Tensor]:
        """The device tensors that it holds."""
        return [*(one for pair in self.keys for one in pair), *(() if self.area is None else self.area.tensors())]


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
