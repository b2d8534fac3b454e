"""Inpainting with a model made for whole pictures: after each step the latents outside the mask are the picture's again.

This is what diffusers' inpaint pipelines do with models of as many input channels as latents have. A grey mask is a share of
the steps: such a pixel follows the picture until only that share is left (Levin & Fried 2023, differential diffusion).
"""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
import torch.nn.functional as F  # noqa: N812 (the name torch's own documentation uses)
from torch import Tensor

from domains.imaging.masks import Mask
from domains.inference.generation import ResolvedGeneration
from domains.inference.masks import MaskFill, steps_of
from domains.inference.on_device.family import PictureLatents
from domains.inference.on_device.noise import Noise
from domains.inference.solvers.level import Level
from domains.inference.solvers.plan import Plan

_CLEAN, _NOISE, _STEPS = "mask.clean", "mask.noise", "mask.steps"
"""Names of the tensors in a checkpoint."""


@dataclass(frozen=True, kw_only=True, eq=False)
class LatentMask:
    """Where a run's latents follow its picture."""

    clean: Tensor
    """(pictures, channels, h/8, w/8): the picture's latents."""
    noise: Tensor
    """The noise over them, the same at every level."""
    steps: Tensor
    """(1, 1, h/8, w/8): how many of the last steps make each latent pixel anew."""

    def held(self, latents: Tensor, level: Level, remaining: int) -> Tensor:
        """The latents after a step that ends at `level`, with so many steps to come."""
        # The walk's end may keep a little noise, which a finished picture has not.
        there = level.alpha * self.clean + level.sigma * self.noise if remaining else self.clean
        return torch.where(self.steps > remaining, latents, there)

    def kept(self) -> dict[str, Tensor]:
        """The tensors by their names in a checkpoint."""
        return {_CLEAN: self.clean, _NOISE: self.noise, _STEPS: self.steps}


def kept_mask(tensors: Mapping[str, Tensor], device: torch.device) -> LatentMask | None:
    """The mask of a checkpoint. None: it has none."""
    if _CLEAN not in tensors:
        return None
    clean, noise, steps = (tensors[name].to(device) for name in (_CLEAN, _NOISE, _STEPS))
    return LatentMask(clean=clean, noise=noise, steps=steps)


@dataclass(frozen=True, kw_only=True, eq=False)
class Masked:
    """Which part of a picture's latents is made anew."""

    shares: Tensor
    """(1, 1, h/8, w/8), 0..1: the most of the pixels in each latent pixel."""
    steps: Tensor
    """See `LatentMask.steps`."""
    from_noise: bool
    """Whether the masked part begins at noise alone."""
    whole: bool
    """Whether all begins at noise alone: no share of the picture is kept in the masked part."""


def masked_of(resolved: ResolvedGeneration, shares: Mask, latent_shape: tuple[int, int, int]) -> Masked:
    """A mask of pixels, (height, width), as one of latents."""
    assert resolved.mask is not None
    assert resolved.init_image is not None
    pixels = torch.from_numpy(shares)[None, None]
    cells = F.max_pool2d(pixels, resolved.height_px // latent_shape[1])
    strength = resolved.init_image.strength
    flat: list[float] = cells.flatten().tolist()
    counts = [float(steps_of(share * strength, resolved.steps)) for share in flat]
    return Masked(
        shares=cells,
        steps=torch.tensor(counts).view_as(cells),
        from_noise=resolved.mask.fill is MaskFill.NOISE,
        whole=strength == 1.0,
    )


def begin_masked(plan: Plan, noise: Noise, picture: PictureLatents, masked: Masked) -> tuple[Tensor, LatentMask]:
    """The first latents, and what holds them to the picture. Draws in the order of diffusers."""
    clean = picture.mean + picture.deviation * noise.draw()
    drawn = noise.draw()
    # For the masked picture, which diffusers encodes whether the model reads it or not.
    noise.draw()
    shares, steps = (one.to(clean.device) for one in (masked.shares, masked.steps))
    mask = LatentMask(clean=clean, noise=drawn, steps=steps)
    if plan.begin is None or masked.whole:
        return drawn * plan.initial_scale, mask
    seen = clean * (1 - shares) if masked.from_noise else clean
    return plan.begin.alpha * seen + plan.begin.sigma * drawn, mask
