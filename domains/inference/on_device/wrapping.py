"""Convolutions with circular padding: beyond an edge they read the opposite edge, so that both edges fit together.

Attention, normalisation and linear layers do not know where an edge is, so this makes a whole U-Net and VAE periodic.
"""

from collections.abc import Generator, Sequence
from contextlib import contextmanager
from typing import Any

import torch.nn.functional as F  # noqa: N812 (the name torch's own documentation uses)
from torch import Tensor

Wraps = tuple[bool, bool]
"""Whether left and right edges fit together, and upper and lower ones."""
NO_WRAPS: Wraps = (False, False)


class _Present:
    """The wraps of the forward that runs now. Forwards run on one thread."""

    def __init__(self) -> None:
        self.wraps = NO_WRAPS


_present = _Present()


@contextmanager
def wrapping(wraps: Wraps) -> Generator[None]:
    """Make these edges fit together in forwards within the context."""
    before, _present.wraps = _present.wraps, wraps
    try:
        yield
    finally:
        _present.wraps = before


def wraps_now() -> bool:
    """Whether some edges fit together."""
    return _present.wraps != NO_WRAPS


def wrapped_conv(layer: Any, x: Tensor) -> Tensor:
    """A `Conv2d` with the present wraps. Its adapters read the same input, since they pad as it does."""
    (down, across), (wraps_x, wraps_y) = layer.padding, _present.wraps
    x = padded(x, (across, across, down, down))
    layer.padding = (0 if wraps_y else down, 0 if wraps_x else across)
    try:
        return layer(x)
    finally:
        layer.padding = (down, across)


def padded(x: Tensor, by: Sequence[int]) -> Tensor:
    """x with so many columns left and right, lines above and below, of the opposite edge, where the edges fit together."""
    left, right, above, below = by
    wraps_x, wraps_y = _present.wraps
    if wraps_x and (left or right):
        x = F.pad(x, (left, right, 0, 0), mode="circular")
    if wraps_y and (above or below):
        x = F.pad(x, (0, 0, above, below), mode="circular")
    return x


def zero_padded(x: Tensor, by: Sequence[int]) -> Tensor:
    """`padded`, and zeros at the edges that do not fit together."""
    left, right, above, below = by
    wraps_x, wraps_y = _present.wraps
    across, down = (0, 0) if wraps_x else (left, right), (0, 0) if wraps_y else (above, below)
    return F.pad(padded(x, by), (*across, *down))
