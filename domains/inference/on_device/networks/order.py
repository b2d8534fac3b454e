"""The order in which a picture's elements lie in memory."""

import torch
from torch import Tensor


def in_order_of(x: Tensor, made: Tensor) -> Tensor:
    """`made` in the memory format of x, both (rows, channels, h, w); copied only if it has another.

    Attention leaves channels last. Where a CPU computes, x has another order (`picture_layout`), and all layers that follow
    would take the order of what attention leaves: a group norm of channels last then takes three times as long.
    """
    return made.contiguous(memory_format=torch.contiguous_format if x.is_contiguous() else torch.channels_last)
