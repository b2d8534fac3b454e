"""Pictures made anew in part: by diffusers' inpaint pipelines, and by our engine's parts."""

from typing import Any

import diffusers
import numpy as np
import torch
from PIL import Image
from torch import Tensor

from domains.inference.generation import ResolvedGeneration
from domains.inference.masks import MaskBlend, MaskFill, ResolvedMask
from domains.inference.on_device.conditioning import condition
from domains.inference.on_device.families.packing import unpacked
from domains.inference.on_device.families.table import family_of
from domains.inference.on_device.guides import NO_GUIDES, Guides
from domains.inference.on_device.inpainting import channels_of, hidden_in, masked_of
from domains.inference.on_device.prompt_cache import PromptCache
from domains.inference.on_device.scene import Scene
from domains.inference.on_device.trajectory import Trajectory, begin, walk_together
from domains.model.on_device import OnDeviceModel
from tests.domains.inference.on_device.from_picture import PACKED, encoded, with_parts_of
from tests.domains.inference.on_device.requests import their_guidance

Pixels = np.ndarray[Any, np.dtype[np.uint8]]


def mask(**changes: Any) -> ResolvedMask:
    """A mask with a hard edge; its bytes are handed over beside the request."""
    plain: dict[str, Any] = {
        "blob_id": "b-2",
        "sha256": "1" * 64,
        "blur_px": 0,
        "dilation_px": 0,
        "invert": False,
        "blend": MaskBlend.NONE,
        "fill": MaskFill.ORIGINAL,
    }
    return ResolvedMask(**{**plain, **changes})


def levels(width: int, height: int, box: tuple[int, int, int, int], level: int = 255) -> Pixels:
    """A mask that is white, or grey, from (left, top) to (right, bottom)."""
    found = np.zeros((height, width), np.uint8)
    left, top, right, bottom = box
    found[top:bottom, left:right] = level
    return found


def scene_of(wanted: ResolvedGeneration, picture: Tensor, white: Pixels) -> Scene:
    return Scene(wanted, picture.numpy(), white if wanted.mask is not None else None)


def begun_masked(
    loaded: OnDeviceModel,
    wanted: ResolvedGeneration,
    picture: Tensor,
    white: Pixels,
    guides: Guides = NO_GUIDES,
    *,
    drawn: bool = True,
) -> Trajectory:
    """Our trajectory at its beginning. `drawn`: see `encoded`."""
    family = family_of(loaded)
    conditioned = condition(loaded, family, wanted, PromptCache())
    scene = scene_of(wanted, picture, white)
    pixels, shape = torch.from_numpy(scene.start), family.latent_shape(wanted.width_px, wanted.height_px)
    start, native = encoded(family, pixels, drawn=drawn), None
    if loaded.model.variant == "inpainting":
        seen = family.encode_picture(pixels, hidden=hidden_in(scene.shares))
        native = channels_of(family, scene.shares, seen, shape)
    masked = masked_of(wanted, scene, shape, native)
    config, conditions, device = loaded.scheduler_config, conditioned.conditions, loaded.device
    renew = conditioned.renew
    return begin(family, wanted, config, conditions, device, start, renew=renew, masked=masked, guides=guides)


def masked_latents(
    loaded: OnDeviceModel,
    wanted: ResolvedGeneration,
    picture: Tensor,
    white: Pixels,
    guides: Guides = NO_GUIDES,
    *,
    drawn: bool = True,
) -> Tensor:
    """Our final latents."""
    with torch.inference_mode():
        trajectory = begun_masked(loaded, wanted, picture, white, guides, drawn=drawn)
        while not trajectory.done:
            walk_together([trajectory])
        return trajectory.latents


def their_pipeline_name(theirs: Any) -> str:
    """The name of diffusers' inpaint pipeline for a family, whether it exists or not."""
    return type(theirs).__name__.replace("InpaintPipeline", "Pipeline").replace("Pipeline", "InpaintPipeline")


def their_masked_latents(
    theirs: Any, wanted: ResolvedGeneration, picture: Tensor, white: Pixels, **others: Any
) -> Tensor | None:
    """Those of diffusers' pipeline, with one generator a picture. None: it has no pipeline for the family."""
    name = their_pipeline_name(theirs)
    if not hasattr(diffusers, name):
        return None
    pipeline: Any = with_parts_of(theirs, name)
    pipeline.set_progress_bar_config(disable=True)
    if wanted.family == "chroma":
        # The pipeline reads a setting that its transformer does not have, and by itself fewer tokens than the others.
        pipeline.transformer.register_to_config(guidance_embeds=False)
        others["max_sequence_length"] = 512
    pictures = len(wanted.seeds)
    found = pipeline(
        prompt=[wanted.prompt] * pictures,
        image=[Image.fromarray(np.asarray(picture))] * pictures,
        mask_image=[Image.fromarray(white)] * pictures,
        strength=wanted.init_image.strength if wanted.init_image else 1.0,
        height=wanted.height_px,
        width=wanted.width_px,
        num_inference_steps=wanted.steps,
        **{**their_guidance(wanted), **others},
        generator=[torch.Generator().manual_seed(seed) for seed in wanted.seeds],
        output_type="latent",
    ).images
    if wanted.family not in PACKED:
        return found
    edge = 2 ** (len(pipeline.vae.config.block_out_channels) - 1)
    return unpacked(found, wanted.height_px // edge, wanted.width_px // edge)
