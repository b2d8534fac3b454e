"""Regions of a picture as the tokens of a transformer: squares of 2×2 latent pixels."""

import torch.nn.functional as F  # noqa: N812 (the name torch's own documentation uses)
from torch import Tensor

EDGE = 2
"""Latent pixels of a token's edge."""


def in_tokens(region: Tensor, like: Tensor, size: tuple[int, int]) -> Tensor:
    """A region (1, 1, h, w) for each token of latents of `size` (h/8, w/8): (1, tokens, 1)."""
    grid = size[0] // EDGE, size[1] // EDGE
    return F.interpolate(region, grid, mode="area").flatten(2).transpose(1, 2).to(like.dtype)
