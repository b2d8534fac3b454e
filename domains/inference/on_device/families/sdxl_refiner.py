"""Refiner of Stable Diffusion XL (Podell et al. 2023): OpenCLIP-bigG alone; its UNet reads pooled text, sizes and a score.

The score is that of aesthetics with which its pictures were labelled, one for each half of a guided picture.
"""

from collections.abc import Sequence
from typing import ClassVar

import torch

from domains.inference.on_device.families.family import Conditions, EncodedPrompt, SizePx
from domains.inference.on_device.families.sdxl import Sdxl
from domains.inference.on_device.networks.unet import flat
from domains.inference.on_device.rows import RowConditions, pooled_of
from domains.inference.refiner import DEFAULT_NEGATIVE_SCORE, DEFAULT_SCORE
from domains.inference.size_conditioning import AS_MADE, SizeConditioning

_CROPPED = 4
"""Numbers of the original size and its crop; the target's size is not read."""


class SdxlRefiner(Sdxl):
    """See `Family`."""

    texts: ClassVar[Sequence[str]] = ("text_encoder_2",)

    def conditions(
        self,
        positive: EncodedPrompt,
        negative: EncodedPrompt | None,
        guidance: float,
        size_px: SizePx,
        told: SizeConditioning = AS_MADE,
        scores: tuple[float, float] = (DEFAULT_SCORE, DEFAULT_NEGATIVE_SCORE),
    ) -> Conditions:
        """`scores`: of the prompt, and of the negative prompt."""
        halves = [(positive, scores[0])] if negative is None else [(negative, scores[1]), (positive, scores[0])]
        cropped = told.numbers(size_px)[:_CROPPED]
        added = [self._unet.added(pooled_of(half), (*cropped, score)) for half, score in halves]
        keys = self._unet.text_keys(torch.cat([half.states for half, _ in halves]))
        return RowConditions(guidance=guidance, guided=negative is not None, inputs=[torch.cat(added), *flat(keys)])
