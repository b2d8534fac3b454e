"""Prompts of parts of a picture: how much each counts at each place, and what the denoiser reads of them.

In a layer of cross-attention a place reads the generation's prompt and those of the regions that cover it, each by its
share; shares add up to 1. What the denoiser reads of prompts as a whole is the mean over the picture.
"""

import dataclasses
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from domains.inference.generation import ResolvedGeneration
from domains.inference.kept_file import KeptFile
from domains.inference.on_device.areas import Area, Shares
from domains.inference.on_device.blend import blended
from domains.inference.on_device.families.family import EncodedPrompt
from domains.inference.on_device.input_picture import read_sized
from domains.inference.on_device.networks.unet import UNet
from domains.inference.on_device.rows import Regions, RowConditions
from domains.inference.on_device.to_device import to_device
from domains.inference.regions import Rectangle


class RegionPrompts(NamedTuple):
    """A region in some steps."""

    place: int
    """Its place among the generation's regions."""
    positive: EncodedPrompt
    negative: EncodedPrompt | None


def region_maps(
    resolved: ResolvedGeneration, masks: Sequence[KeptFile | None], device: torch.device
) -> Sequence[Tensor]:
    """For each region, how much it counts at each place: (1, 1, h, w), float32, its weight included."""
    size_px = resolved.width_px, resolved.height_px
    found: list[Tensor] = []
    for region, mask in zip(resolved.regions, masks, strict=True):
        if mask is not None:
            where = read_sized(mask, size_px, (1,)).permute(2, 0, 1).unsqueeze(0).float().div(255)
        else:
            assert region.rectangle is not None, "the check wants a mask or a rectangle"
            where = _drawn(region.rectangle, size_px)
        found.append(to_device(where.mul(region.weight), device))
    return found


def _drawn(box: Rectangle, size_px: tuple[int, int]) -> Tensor:
    found = torch.zeros(1, 1, size_px[1], size_px[0])
    found[..., box.top_px : box.top_px + box.height_px, box.left_px : box.left_px + box.width_px] = 1
    return found


def over_the_picture(prompts: Sequence[EncodedPrompt], shares: Sequence[float]) -> EncodedPrompt:
    """The first prompt, with what is read of all as a whole: their mean by shares."""
    first = prompts[0]
    if first.pooled is None or all(one is first for one in prompts):
        return first
    without = [unconditional(one) for one in prompts]
    # Those of regions with text encoders of their own may have another length; their states are not read here.
    alike = [dataclasses.replace(one, states=without[0].states) for one in without]
    mean = blended([*zip(alike, shares, strict=True)])
    return dataclasses.replace(without[0], pooled=mean.pooled, blank=mean.blank)


def unconditional(prompt: EncodedPrompt) -> EncodedPrompt:
    """Zeros for an empty prompt of which something is read as a whole: SDXL was trained so, and says it in
    `force_zeros_for_empty_prompt`."""
    if not prompt.blank or prompt.pooled is None:
        return prompt
    return dataclasses.replace(prompt, states=torch.zeros_like(prompt.states), pooled=torch.zeros_like(prompt.pooled))


def with_regions(base: RowConditions, others: Sequence[RowConditions], shares: Shares, unet: UNet) -> RowConditions:
    """The conditions of the generation's prompt with those of its regions."""
    parts = [_keys(one, unet) for one in others]
    return dataclasses.replace(
        base,
        regions=Regions(
            kept=Area(map=shares.base),
            areas=[Area(map=one) for one in shares.of_regions],
            keys=parts,
        ),
    )


def _keys(conditions: RowConditions, unet: UNet) -> Sequence[tuple[Tensor, Tensor]]:
    """For each layer."""
    flat = [*conditions.inputs][int(unet.reads_sizes) :]
    return [*zip(flat[::2], flat[1::2], strict=True)]
