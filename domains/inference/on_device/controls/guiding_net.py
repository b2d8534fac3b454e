"""What a ControlNet of any family does for the rows of a forward."""

from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor

from domains.inference.on_device.cross_reads import Beside
from domains.inference.on_device.families.family import KeepOn
from domains.inference.on_device.rows import RowConditions

FIRST_SHARE = 0.1
"""Share of the first residual where layers count differently; the last one counts fully."""


class SeePicture(Protocol):
    """The encoder of a model's VAE."""

    def __call__(self, pixels: Tensor, *, hidden: Tensor | None = None) -> Tensor:
        """Pixels (h, w, 3) uint8 → (1, channels, h/8, w/8), float32: scaled latents, without noise. `hidden` (1, 1, h, w):
        1 for each pixel that is grey instead."""
        ...


def growing_shares(layers: int) -> Tensor:
    """(layers,): how much each residual counts where the first ones count less."""
    return torch.logspace(torch.tensor(FIRST_SHARE).log10(), 0, layers)


class GuidingNet(Protocol):
    """A ControlNet. One instance serves all jobs of a device that use it."""

    dtype: torch.dtype
    """Precision of the computation."""
    of_whole_picture: bool
    """Whether rows without the prompt see none of its residuals."""
    reads_prompt_alone: bool
    """Whether it reads the row with the prompt alone, and the row without takes the same residuals."""

    types: int
    """How many types of maps it is told apart by their number. 0: it knows one, and is told none."""

    @property
    def layers(self) -> int:
        """Number of residuals."""
        ...

    def typed(self, conditions: RowConditions, number: int) -> RowConditions:
        """What it reads of a prompt, with the type of its map, below `types`."""
        ...

    def weighed(self, conditions: RowConditions, weight: float) -> RowConditions:
        """What it reads of a prompt, with the weight of its map, if that counts before its residuals do."""
        ...

    def hint(self, control_map: Tensor, hidden: Tensor | None, see: SeePicture) -> Tensor:
        """(1, …): what it reads of a map (h, w, 3) uint8; the same in all steps. `hidden` (1, 1, h, w): more than 0 for each
        missing pixel."""
        ...

    def residuals(
        self,
        latents: Tensor,
        timestep: Tensor,
        inputs: Sequence[Tensor],
        hints: Tensor,
        keep_on: KeepOn,
        beside: Sequence[Sequence[Beside]] = (),
        base: Any = None,
    ) -> list[Tensor]:
        """latents, hints: (pictures, …); timestep: (1,) or (pictures,); inputs: each (rows, …), what it reads of prompts;
        beside: what some rows read of the prompts of regions; base: the model's denoiser. Returns `layers` tensors, each
        (rows, …), or (pictures, …) if it reads the prompt alone. Raises what `keep_on` raises."""
        ...

    def shares(self) -> Tensor:
        """(layers,): how much each residual counts where the first ones count less."""
        ...

    def region_in(self, region: Tensor, residual: Tensor, size: tuple[int, int]) -> Tensor:
        """A region (1, 1, h, w) in the size of a residual of latents of `size` (h/8, w/8)."""
        ...

    def aligned(self, residuals: Sequence[Tensor], base: Any) -> Sequence[Tensor | None]:
        """The residuals in the places where the denoiser adds them. None: nothing is added there."""
        ...


class TypedMap(NamedTuple):
    """One of several maps that a network reads together."""

    hint: Tensor
    """(1, …): what the network reads of it alone."""
    number: int | None
    """Its type. None: the network is told none."""
    weight: float


class JoiningNet(GuidingNet, Protocol):
    """A ControlNet that can read several maps of a job in one forward."""

    weighs_maps: bool
    """Whether it weighs each map before it reads it. Else all have one weight, by which its residuals count."""

    def typed_together(self, conditions: RowConditions, numbers: Sequence[int]) -> RowConditions:
        """What it reads of a prompt, with the types of all maps, for their joined hint."""
        ...

    def joined(self, maps: Sequence[TypedMap]) -> Tensor:
        """(1, …): what it reads of all maps, weighted; the same in all steps. Enqueues."""
        ...
