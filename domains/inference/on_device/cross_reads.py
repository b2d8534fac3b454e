"""What some rows of a forward read in a layer of cross-attention beside the text of all rows.

Pictures of IP-Adapters are read beside the prompt; the prompts of regions are read in its place where they count.
"""

from collections.abc import Sequence
from typing import NamedTuple

from torch import Tensor, nn

from domains.inference.on_device.areas import Area
from domains.inference.on_device.families.family import KeepOn
from domains.inference.on_device.networks.slices import attention

KeysValues = tuple[Tensor, Tensor]
"""(rows, heads, tokens, head width), twice."""


class Norms(NamedTuple):
    """How queries and keys of the latents are brought to the scale of what is read together with them."""

    query: nn.Module
    key: nn.Module


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
    norms: Norms | None = None
    """Where latents read it together with their own keys and values."""


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
