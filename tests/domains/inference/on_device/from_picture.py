"""Pictures made from a picture: by diffusers' own pipeline, and by our engine's parts."""

from inspect import signature
from typing import Any

import diffusers
import numpy as np
import torch
from PIL import Image
from torch import Tensor

from domains.inference.generation import ResolvedGeneration
from domains.inference.image_fit import ImageFit
from domains.inference.init_image import ResolvedInitImage
from domains.inference.on_device.conditioning import condition
from domains.inference.on_device.families.family import Family, PictureLatents
from domains.inference.on_device.families.packing import unpacked
from domains.inference.on_device.families.table import family_of
from domains.inference.on_device.guides import NO_GUIDES, Guides
from domains.inference.on_device.prompt_cache import PromptCache
from domains.inference.on_device.trajectory import Trajectory, begin, walk_together
from domains.model.on_device import OnDeviceModel
from tests.domains.inference.on_device.requests import their_guidance

PACKED = ("flux1", "chroma")
"""Families whose pipelines give latents as tokens."""


def from_picture(strength: float) -> ResolvedInitImage:
    """A picture to start from; its bytes are handed over beside the request."""
    return ResolvedInitImage(blob_id="b-1", sha256="0" * 64, strength=strength, fit=ImageFit.COVER)


def gradient(width: int, height: int) -> Tensor:
    """A picture without symmetries, (height, width, 3) uint8."""
    rows, columns = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    return torch.stack([rows * 5 % 256, columns * 4 % 256, (rows * columns) % 256], dim=-1).to(torch.uint8)


def begun_from(
    loaded: OnDeviceModel,
    wanted: ResolvedGeneration,
    picture: Tensor,
    guides: Guides = NO_GUIDES,
    *,
    drawn: bool = True,
) -> Trajectory:
    """Our trajectory at its beginning. `drawn`: see `encoded`."""
    family = family_of(loaded)
    found = condition(loaded, family, wanted, PromptCache())
    start = encoded(family, picture, drawn=drawn)
    config, device = loaded.scheduler_config, loaded.device
    return begin(family, wanted, config, found.conditions, device, start, renew=found.renew, guides=guides)


def encoded(family: Family, picture: Tensor, *, drawn: bool) -> PictureLatents:
    """What the VAE makes of a picture. `drawn`: whether its latents are drawn from a distribution, or are its middle."""
    found = family.encode_picture(picture)
    return found if drawn else PictureLatents(mean=found.mean, deviation=None)


def latents_from(
    loaded: OnDeviceModel,
    wanted: ResolvedGeneration,
    picture: Tensor,
    guides: Guides = NO_GUIDES,
    *,
    drawn: bool = True,
) -> Tensor:
    """Our final latents."""
    with torch.inference_mode():
        trajectory = begun_from(loaded, wanted, picture, guides, drawn=drawn)
        while not trajectory.done:
            walk_together([trajectory])
        return trajectory.latents


def with_parts_of(theirs: Any, name: str) -> Any:
    """Diffusers' pipeline of this name, with those parts of another one that it has."""
    kind = getattr(diffusers, name)
    has = signature(kind.__init__).parameters
    return kind(**{part: one for part, one in theirs.components.items() if part in has})


def their_latents_from(theirs: Any, wanted: ResolvedGeneration, picture: Tensor, **others: Any) -> Tensor | None:
    """Those of diffusers' pipeline, with one generator a picture. None: it has no pipeline for the family."""
    name = type(theirs).__name__.replace("Pipeline", "Img2ImgPipeline")
    if not hasattr(diffusers, name):
        return None
    pipeline = with_parts_of(theirs, name)
    pipeline.set_progress_bar_config(disable=True)
    pictures = len(wanted.seeds)
    sized = {} if name.startswith("StableDiffusion") and "3" not in name else {"height": wanted.height_px}
    found = pipeline(
        prompt=[wanted.prompt] * pictures,
        image=[Image.fromarray(np.asarray(picture))] * pictures,
        strength=wanted.init_image.strength if wanted.init_image else 1.0,
        **(sized | {"width": wanted.width_px} if sized else {}),
        num_inference_steps=wanted.steps,
        **{**their_guidance(wanted), **others},
        generator=[torch.Generator().manual_seed(seed) for seed in wanted.seeds],
        output_type="latent",
    ).images
    if wanted.family not in PACKED:
        return found
    edge = 2 ** (len(pipeline.vae.config.block_out_channels) - 1)
    return unpacked(found, wanted.height_px // edge, wanted.width_px // edge)
