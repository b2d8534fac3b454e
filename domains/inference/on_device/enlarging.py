"""Enlarges latents, or the pixels that they become, for a second pass."""

from collections.abc import Sequence

import torch
from torch import Tensor

from domains.imaging.resample import resampled
from domains.inference.on_device.families.family import PictureLatents
from domains.inference.resampling import Resampling

_MODES = {
    Resampling.BICUBIC: "bicubic",
    Resampling.BILINEAR: "bilinear",
    Resampling.AREA: "area",
    Resampling.NEAREST: "nearest-exact",
}


def enlarged_latents(latents: Tensor, size: tuple[int, int], by: Resampling) -> Tensor:
    """(pictures, channels, h, w) → (pictures, channels, *size)."""
    return torch.nn.functional.interpolate(latents, size=size, mode=_MODES[by])


def enlarged_pixels(pixels: Tensor, size_px: tuple[int, int], by: Resampling) -> Tensor:
    """(h, w, 3) uint8 on the CPU → (height, width, 3) of `size_px` = (width, height)."""
    return torch.from_numpy(resampled(pixels.numpy(), *size_px, by.value))


def joined(pictures: Sequence[PictureLatents]) -> PictureLatents:
    """The latents of several pictures in one."""
    deviations = [one.deviation for one in pictures if one.deviation is not None]
    return PictureLatents(
        mean=torch.cat([one.mean for one in pictures]), deviation=torch.cat(deviations) if deviations else None
    )
