"""Stable Diffusion 1.x and 2.x: CLIP text encoder, UNet, 4-channel VAE (Rombach et al. 2022).

Version 2 has another encoder and linear layers where the first has 1×1 convolutions; its modules say so themselves.
"""

from collections.abc import Sequence
from typing import cast

import torch
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
from domains.model.families.unet import EDITING
from domains.model.on_device import OnDeviceModel


class Sd1(LatentCodec):
    """See `Family`."""

    def __init__(self, loaded: OnDeviceModel) -> None:
        super().__init__(loaded)
        self._unet = UNet(cast(UNet2DConditionModel, loaded.modules["unet"]))
        self._edits = loaded.model.variant == EDITING
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
        """See `Family`. InstructPix2Pix was trained with unscaled latents here."""
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
