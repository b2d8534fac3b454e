"""Latents as the tokens of a transformer: squares of 2×2 latent pixels."""

import torch
from torch import Tensor

_EDGE = 2


def packed(latents: Tensor) -> Tensor:
    """(rows, channels, h, w) → (rows, h/2 · w/2, 4 · channels)."""
    squares = latents.unflatten(2, (-1, _EDGE)).unflatten(4, (-1, _EDGE))
    # (rows, channels, h/2, 2, w/2, 2)
    return squares.permute(0, 2, 4, 1, 3, 5).flatten(3).flatten(1, 2)


def unpacked(tokens: Tensor, height: int, width: int) -> Tensor:
    """(rows, h/2 · w/2, 4 · channels) → (rows, channels, h, w)."""
    squares = tokens.unflatten(1, (height // _EDGE, width // _EDGE)).unflatten(3, (-1, _EDGE, _EDGE))
    return squares.permute(0, 3, 1, 4, 2, 5).flatten(4).flatten(2, 3)


def positions(height: int, width: int, device: torch.device) -> Tensor:
    """(h/2 · w/2, 3): zero, line and column of each token."""
    lines, columns = torch.arange(height // _EDGE, device=device), torch.arange(width // _EDGE, device=device)
    grid = torch.stack(torch.meshgrid(lines, columns, indexing="ij"), dim=-1).flatten(0, 1).float()
    return torch.cat([torch.zeros_like(grid[:, :1]), grid], dim=1)


TOGETHER = 32
"""Z-Image pads the tokens of a picture, and those of a prompt, to a multiple of this."""


def padded(tokens: int) -> int:
    """Number of tokens with the padding of Z-Image."""
    return -(-tokens // TOGETHER) * TOGETHER
