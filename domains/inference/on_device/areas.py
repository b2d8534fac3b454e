"""How much something counts at each place of a picture: prompts and LoRAs of regions, pictures of IP-Adapters."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F  # noqa: N812 (the name torch's own documentation uses)
from torch import Tensor


@dataclass(frozen=True, kw_only=True, eq=False)
class Area:
    """How much something counts at each place of the picture."""

    map: Tensor
    """(1, 1, h, w), float32."""
    mode: Literal["area", "bicubic"] = "area"
    """How it is brought to the size of a layer."""
    _sized: dict[tuple[int, int], Tensor] = field(default_factory=dict[tuple[int, int], Tensor])
    """By size: the same in all steps, and for all layers of the size."""

    def at(self, size: tuple[int, int], dtype: torch.dtype) -> Tensor:
        """(1, 1, h·w, 1) for a layer of this size (h, w)."""
        if size not in self._sized:
            found = F.interpolate(self.map, size, mode=self.mode)
            self._sized[size] = found.flatten(2).unsqueeze(-1).to(dtype)
        return self._sized[size]

    def over(self, output: Tensor, latents: tuple[int, int]) -> Tensor:
        """How much it counts at each place of a layer's output, of a U-Net whose latents have this size (h, w): of a picture
        (rows, channels, h, w), or of its tokens (rows, tokens, width). For what has no place, (rows, width): the mean."""
        if output.dim() == 4:
            size = output.shape[2], output.shape[3]
            return self.at(size, output.dtype).view(1, 1, *size)
        if output.dim() == 3:
            return self.at(_size_of(output.shape[1], latents), output.dtype)[0]
        return self.map.mean().to(output.dtype)

    def tensors(self) -> Sequence[Tensor]:
        """The device tensors that it holds."""
        return [self.map, *self._sized.values()]


def _size_of(tokens: int, latents: tuple[int, int]) -> tuple[int, int]:
    """(h, w) of the level of a U-Net that has so many tokens. Each level is half as large, rounded up."""
    height, width = latents
    while height * width > tokens and height * width > 1:
        height, width = (height + 1) // 2, (width + 1) // 2
    if height * width != tokens:
        raise RuntimeError(f"no level of latents of {latents} has {tokens} tokens")
    return height, width


class Shares(NamedTuple):
    """How much prompts count at each place; together 1."""

    base: Tensor
    """Of the generation's prompt, (1, 1, h, w)."""
    of_regions: Sequence[Tensor]

    def means(self) -> Sequence[float]:
        """Each share in the whole picture, the generation's prompt first."""
        return torch.stack([one.mean() for one in (self.base, *self.of_regions)]).tolist()


def shares_of(maps: Sequence[Tensor]) -> Shares:
    """The shares of regions with these maps. What they leave is the generation's prompt; where they overlap, or weigh more
    than 1, they are scaled down."""
    whole = torch.stack([*maps]).sum(0)
    scale = whole.clamp(min=1)
    return Shares((1 - whole).clamp(min=0), [one / scale for one in maps])
