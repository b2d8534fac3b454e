"""Enlarges pictures by an upscaler model, tile by tile: a job that is stopped is left between two tiles.

A tile is read with its surroundings, as far as the network looks, and only its own part of the result is kept. So the tiles
of a network that looks no further give the picture as a whole.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, cast

import torch
from torch import Tensor, nn

from domains.inference.given import Given
from domains.inference.on_device.families.family import KeepOn, regardless
from domains.inference.on_device.network_pool import Borrowed, NetworkPool
from domains.inference.on_device.networks.watched_module import WatchedModule
from domains.inference.on_device.to_device import to_device
from domains.model.on_device import OnDeviceModel, Upscaler, loading_upscaler

TILE_PX = 192
"""Edge of a tile, without its surroundings. The largest tensor of ESRGAN at 4× is then 270 MB."""


@dataclass(frozen=True)
class Tile:
    """A part of a picture."""

    top: int
    left: int
    bottom: int
    right: int


def tiles_of(height: int, width: int, edge: int = TILE_PX) -> Sequence[Tile]:
    """The tiles of a picture, line by line."""
    return [
        Tile(top, left, min(height, top + edge), min(width, left + edge))
        for top in range(0, height, edge)
        for left in range(0, width, edge)
    ]


def upscaled_tile(
    net: Upscaler, pixels: Tensor, tile: Tile, device: torch.device, keep_on: KeepOn = regardless
) -> Tensor:
    """Pixels (h, w, 3) uint8 → those of one tile, enlarged, uint8, on the device. Enqueues. Raises what `keep_on` raises."""
    height, width = pixels.shape[:2]
    top, left = max(0, tile.top - net.reach_px), max(0, tile.left - net.reach_px)
    bottom, right = min(height, tile.bottom + net.reach_px), min(width, tile.right + net.reach_px)
    part = to_device(pixels[top:bottom, left:right], device).permute(2, 0, 1).unsqueeze(0).float().div(255)
    found = WatchedModule(cast(nn.Module, net))(keep_on, part)[0]
    lines = slice((tile.top - top) * net.scale, (tile.bottom - top) * net.scale)
    columns = slice((tile.left - left) * net.scale, (tile.right - left) * net.scale)
    levels = found[:, lines, columns].mul(255).round().clamp(0, 255)
    return levels.to(torch.uint8).permute(1, 2, 0).contiguous()


@dataclass(eq=False)
class Growing:
    """A picture that is enlarged tile by tile, again and again until it has the size."""

    pixels: Tensor
    """(h, w, 3) uint8, on the CPU."""
    size_px: tuple[int, int]
    """(width, height) that it shall have at least."""
    _done: int = 0
    _canvas: Tensor | None = None
    _tiles: Sequence[Tile] = field(default_factory=tuple[Tile, ...])

    def next_tile(self, net: Upscaler) -> Tile | None:
        """The tile to enlarge next. None: the picture is large enough."""
        if self._canvas is None:
            height, width = self.pixels.shape[:2]
            if width >= self.size_px[0] and height >= self.size_px[1]:
                return None
            self._tiles, self._done = tiles_of(height, width), 0
            self._canvas = torch.empty(height * net.scale, width * net.scale, 3, dtype=torch.uint8)
        return self._tiles[self._done]

    def put(self, tile: Tile, found: Tensor, scale: int) -> None:
        """Take an enlarged tile (h, w, 3), uint8, on the CPU."""
        canvas = self._canvas
        assert canvas is not None, "`next_tile` has given the tile"
        canvas[tile.top * scale : tile.bottom * scale, tile.left * scale : tile.right * scale] = found
        self._done += 1
        if self._done == len(self._tiles):
            self.pixels, self._canvas = canvas, None


class UpscalerOfJob:
    """The upscaler of a job's second pass, on its way or there."""

    def __init__(self, job_id: str, given: Given, pool: NetworkPool) -> None:
        hires = given.resolved.hires_pass
        self._wanted = [] if given.upscaler is None or hires is None else [(given.upscaler, hires.upscaler_sha256)]
        self.network = Borrowed(f"{job_id} upscaler", pool)

    def bring(self, base: OnDeviceModel) -> bool:
        """Load a piece. Returns whether the upscaler is there, or none is asked for. Raises as loads of models."""
        return self.network.bring([(model, sha256, loading_upscaler) for model, sha256 in self._wanted], base)

    @property
    def net(self) -> Upscaler:
        """The upscaler, which `bring` has loaded."""
        return cast(Upscaler, cast(Any, self.network.loads[0].module))
