"""Inpainting in latents: after each step the latents outside the mask are the picture's again; or the model reads the mask.

The first is what diffusers' inpaint pipelines do with models of as many input channels as latents have. A model made for
inpainting reads the mask and the picture without the masked part in channels of its own. A grey mask is a share of the
steps: such a pixel follows the picture until only that share is left (Levin & Fried 2023, differential diffusion).
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
import torch.nn.functional as F  # noqa: N812 (the name torch's own documentation uses)
from torch import Tensor

from domains.imaging.masks import Mask
from domains.inference.generation import ResolvedGeneration
from domains.inference.masks import MaskFill, steps_of
from domains.inference.on_device.families.family import Family, PictureLatents
from domains.inference.on_device.noise import Noise
from domains.inference.on_device.scene import Scene
from domains.inference.on_device.to_device import to_device
from domains.inference.solvers.level import Level
from domains.inference.solvers.plan import Plan
from domains.model.families import FAMILIES

_CLEAN, _NOISE, _STEPS, _READ = "mask.clean", "mask.noise", "mask.steps", "mask.read"
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
    read: Tensor | None = None
    """(pictures, channels, h/8, w/8): what a model made for inpainting reads beside the latents. None: nothing."""

    def held(self, latents: Tensor, level: Level, remaining: int) -> Tensor:
        """The latents after a step that ends at `level`. `remaining`: number of steps to come."""
        # The walk's end may keep a little noise, which a finished picture has not.
        there = level.alpha * self.clean + level.sigma * self.noise if remaining else self.clean
        return torch.where(self.steps > remaining, latents, there)

    def kept(self) -> dict[str, Tensor]:
        """The tensors by their names in a checkpoint."""
        read = {} if self.read is None else {_READ: self.read}
        return {_CLEAN: self.clean, _NOISE: self.noise, _STEPS: self.steps, **read}


def kept_mask(tensors: Mapping[str, Tensor], device: torch.device) -> LatentMask | None:
    """The mask of a checkpoint. None: it has none."""
    if _CLEAN not in tensors:
        return None
    clean, noise, steps = (to_device(tensors[name], device) for name in (_CLEAN, _NOISE, _STEPS))
    read = to_device(tensors[_READ], device) if _READ in tensors else None
    return LatentMask(clean=clean, noise=noise, steps=steps, read=read)


@dataclass(frozen=True, kw_only=True, eq=False)
class Native:
    """The input of a model made for inpainting."""

    seen: PictureLatents
    """The picture without the masked part."""
    channels: Callable[[Tensor], Tensor]
    """Puts the mask beside latents of `seen`."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Masked:
    """Which part of a picture's latents is made anew."""

    steps: Tensor
    """See `LatentMask.steps`."""
    from_noise: Tensor | None
    """(1, 1, h/8, w/8), 0..1: how much of each latent pixel begins at noise alone. None: nothing."""
    whole: bool
    """Whether all begins at noise alone: no share of the picture is kept in the masked part."""
    native: Native | None = None
    """None: a model made for whole pictures."""
    draws_picture: bool = True
    """Whether the latents are drawn from the encoder's distribution of the picture, as diffusers does."""


def masked_of(
    resolved: ResolvedGeneration, scene: Scene, latent_shape: tuple[int, int, int], native: Native | None = None
) -> Masked:
    """A mask of pixels as one of latents: each latent pixel takes the largest value of its pixels."""
    assert resolved.init_image is not None
    edge, strength = resolved.height_px // latent_shape[1], resolved.init_image.strength
    cells = F.max_pool2d(torch.from_numpy(scene.shares)[None, None], edge)
    flat: list[float] = cells.flatten().tolist()
    # A model that reads the mask keeps the rest itself.
    kept = 0 if native is None else resolved.computed_steps
    counts = [float(steps_of(share, resolved.steps) if share else kept) for share in flat]
    noisy = None if scene.from_noise is None else F.max_pool2d(torch.from_numpy(scene.from_noise)[None, None], edge)
    grows = resolved.outpaint
    whole = strength == 1.0 if grows is None else grows.fill is MaskFill.NOISE
    return Masked(
        steps=torch.tensor(counts).view_as(cells),
        from_noise=noisy,
        whole=whole,
        native=native,
        draws_picture=native is None or not whole or FAMILIES[resolved.family].flow,
    )


def channels_of(family: Family, scene_shares: Mask, seen: PictureLatents, latent_shape: tuple[int, int, int]) -> Native:
    """What a model made for inpainting reads of a mask of pixels."""
    hidden = hidden_in(scene_shares)
    cells = F.max_pool2d(hidden, hidden.shape[2] // latent_shape[1])
    return Native(seen=seen, channels=lambda latents: family.inpaint_channels(latents, hidden, cells))


def hidden_in(shares: Mask) -> Tensor:
    """(1, 1, height, width): 1 for each pixel that a model made for inpainting does not see, else 0."""
    return torch.from_numpy(shares > 0)[None, None].float()


def begin_masked(plan: Plan, noise: Noise, picture: PictureLatents, masked: Masked) -> tuple[Tensor, LatentMask]:
    """The first latents, and what holds them to the picture. Draws in the order of diffusers."""
    clean = _drawn(picture, noise) if masked.draws_picture else picture.mean
    drawn = noise.draw()
    # Diffusers encodes the picture without the masked part, whether the model reads it or not.
    seen = _drawn(picture if masked.native is None else masked.native.seen, noise)
    read = None if masked.native is None else masked.native.channels(seen)
    steps = to_device(masked.steps, clean.device)
    mask = LatentMask(clean=clean, noise=drawn, steps=steps, read=read)
    if plan.begin is None or masked.whole:
        return drawn * plan.initial_scale, mask
    start = clean if masked.from_noise is None else clean * (1 - masked.from_noise.to(clean))
    return plan.begin.alpha * start + plan.begin.sigma * drawn, mask


def _drawn(picture: PictureLatents, noise: Noise) -> Tensor:
    return picture.drawn(noise.draw)
