"""Decodes latents in tiles that overlap and fade into each other, as diffusers' `tiled_decode` does.

A tile's normalisation sees the tile alone, so the picture differs a little from one decoded as a whole.
"""

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

SMALLEST = 32
"""Edge in latent pixels of the smallest tile: smaller ones have too little picture for the normalisation."""
_OVERLAP = 4
"""The overlap is this part of a tile's edge."""


def smaller_tile(longest: int, tile: int | None) -> int | None:
    """The next smaller tile for latents with such a longest edge. `tile` None: they were decoded as a whole. None: there is
    no smaller one."""
    half = max(SMALLEST, (tile or longest) // 2)
    return half if half < (tile or longest) else None


def in_tiles(latents: Tensor, tile: int, decode: Callable[[Tensor], Tensor], scale_px: int) -> Tensor:
    """(n, channels, h, w) → (n, 3, h · scale, w · scale), float32. `decode`: latents of tiles → their pictures."""
    height, width = latents.shape[2:]
    picture = torch.zeros(
        len(latents), 3, height * scale_px, width * scale_px, dtype=torch.float32, device=latents.device
    )
    weights = torch.zeros_like(picture[:1, :1])
    fade_px = tile // _OVERLAP * scale_px
    for top in _starts(height, tile):
        for left in _starts(width, tile):
            part = decode(latents[:, :, top : top + tile, left : left + tile]).float()
            lines, columns = part.shape[2:]
            fade = _fade(lines, fade_px, part).view(-1, 1) * _fade(columns, fade_px, part)
            y, x = top * scale_px, left * scale_px
            picture[:, :, y : y + lines, x : x + columns] += part * fade
            weights[:, :, y : y + lines, x : x + columns] += fade
    return picture.div_(weights)


def _starts(length: int, tile: int) -> Iterator[int]:
    """Where tiles begin. The last one ends at the edge."""
    last = max(0, length - tile)
    yield from range(0, last, tile - tile // _OVERLAP)
    yield last


def _fade(length: int, fade_px: int, like: Tensor) -> Tensor:
    """Weights along an edge: rising over the overlap, 1 within, falling over the overlap; never 0."""
    place = torch.arange(1, length + 1, dtype=torch.float32, device=like.device)
    return torch.minimum(place, place.flip(0)).clamp(max=fade_px) / fade_px
