"""Stable Diffusion 1.x and 2.x: CLIP text encoder, UNet, 4-channel VAE (Rombach et al. 2022).

Version 2 has another encoder and linear layers where the first has 1×1 convolutions; its modules say so themselves.
"""

from collections.abc import Sequence
from typing import cast

import torch
import torch.nn.functional as F  # noqa: N812 (the name torch's own documentation uses)
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from torch import Tensor

from domains.inference.on_device.batches import Batch
from domains.inference.on_device.clip_text import ClipText, encoded
from domains.inference.on_device.editing import beside_latents
from domains.inference.on_device.families.family import Conditions, EncodedPrompt, KeepOn, SizePx, StepRows, regardless
from domains.inference.on_device.families.latent_codec import LatentCodec
from domains.inference.on_device.networks.unet import UNet, flat
from domains.inference.on_device.rows import RowConditions
from domains.inference.prompts import Prompt
from domains.model.families.unet import DEPTH, EDITING
from domains.model.on_device import OnDeviceModel

_LUMA = (0.299, 0.587, 0.114)
"""ITU-R BT.601, as Pillow makes grey of colours."""
_LEAST_DEPTH = 1e-3
"""Of 255: less is no depth."""


class Sd1(LatentCodec):
    """See `Family`."""

    def __init__(self, loaded: OnDeviceModel) -> None:
        super().__init__(loaded)
        self._unet = UNet(cast(UNet2DConditionModel, loaded.modules["unet"]))
        self._sees_depth = loaded.model.variant == DEPTH
        self._edits = self._sees_depth or loaded.model.variant == EDITING
        self._text = ClipText(loaded.modules["text_encoder"], loaded.tokenizers["text_encoder"], loaded.device)

    @property
    def unet(self) -> UNet:
        """The denoiser."""
        return self._unet

    def encode(self, prompt: Prompt) -> EncodedPrompt:
        windows = self._text.windows(prompt)
        return encoded(prompt, windows, self._text.states(prompt, windows.windows).states)

    def conditions(
        self, positive: EncodedPrompt, negative: EncodedPrompt | None, guidance: float, size_px: SizePx
    ) -> Conditions:
        return self.conditions_for(self._unet, positive, negative, guidance, size_px)

    def conditions_for(
        self, unet: UNet, positive: EncodedPrompt, negative: EncodedPrompt | None, guidance: float, size_px: SizePx
    ) -> RowConditions:
        """What a network that reads prompts as this family's U-Net does reads in all steps."""
        halves = [positive] if negative is None else [negative, positive]
        keys = unet.text_keys(torch.cat([half.states for half in halves]))
        return RowConditions(guidance=guidance, guided=negative is not None, inputs=flat(keys))

    def encode_reference(self, pixels: Tensor, keep_on: KeepOn = regardless, hidden: Tensor | None = None) -> Tensor:
        """See `Family`. InstructPix2Pix was trained with unscaled latents here. Of a depth map: (1, 1, h/8, w/8), −1..1 from
        its darkest to its brightest part."""
        if self._sees_depth:
            return depth_of(pixels, self.scale_px)
        return self._unscaled(super().encode_reference(pixels, keep_on, hidden))

    def denoise(self, group: Sequence[StepRows], keep_on: KeepOn) -> list[Tensor]:
        def forward(batch: Batch) -> Tensor:
            pictures, keys = beside_latents(batch) if self._edits else (batch.pictures, batch.inputs)
            latents = pictures.to(self._unet.dtype, memory_format=self._layout)
            residuals = batch.residuals(latents, keep_on)
            return self._unet(
                latents,
                batch.picture_times,
                self._unet.text_keys_of(keys),
                keep_on,
                residuals=residuals,
                beside=batch.beside,
                features=batch.features,
            )

        return self._batches(group, forward)


def depth_of(pixels: Tensor, scale_px: int) -> Tensor:
    """(1, 1, h/8, w/8), −1..1, of a depth map (h, w, 3) uint8, as StableDiffusionDepth2ImgPipeline of diffusers makes it. A
    map without depth is −1. `scale_px`: edge in pixels of a latent pixel."""
    height, width = pixels.shape[:2]
    grey = (pixels.float() * pixels.new_tensor(_LUMA, dtype=torch.float32)).sum(-1)[None, None]
    small = F.interpolate(grey, (height // scale_px, width // scale_px), mode="bicubic", align_corners=False)
    least = small.amin()
    return 2 * (small - least) / (small.amax() - least).clamp(min=_LEAST_DEPTH) - 1
