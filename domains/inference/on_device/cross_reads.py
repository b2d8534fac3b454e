"""What some rows of a forward read in a layer of cross-attention beside the text of all rows.

Pictures of IP-Adapters are read beside the prompt; the prompts of regions are read in its place where they count.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F  # noqa: N812 (the name torch's own documentation uses)
from torch import Tensor

from domains.inference.on_device.families.family import KeepOn
from domains.inference.on_device.networks.slices import attention

KeysValues = tuple[Tensor, Tensor]
"""(rows, heads, tokens, head width), twice."""


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

    def tensors(self) -> Sequence[Tensor]:
        """The device tensors that it holds."""
        return [self.map, *self._sized.values()]


class Beside(NamedTuple):
    """What some rows read in one layer."""

    rows: slice
    keys: Tensor
    """(rows, heads, tokens, head width)."""
    values: Tensor
    weight: float = 1.0
    area: Area | None = None
    """Where it counts. None: everywhere alike."""
    kept: Area | None = None
    """How much of what these rows have read before stays. None: all."""


def read_beside(found: Tensor, query: Tensor, beside: Sequence[Beside], size: tuple[int, int], keep_on: KeepOn) -> None:
    """Add what the rows read to what their heads have found so far (rows, heads, tokens, head width), in place. `size`:
    (h, w) of the layer. Raises what `keep_on` raises."""
    for one in beside:
        own = found[one.rows]
        if one.kept is not None:
            own.mul_(one.kept.at(size, found.dtype))
        more = attention(query[one.rows], one.keys, one.values, keep_on)
        if one.area is not None:
            more.mul_(one.area.at(size, found.dtype))
        own.add_(more, alpha=one.weight)
