"""Stable Diffusion 1.x and 2.x: CLIP text encoder, UNet, 4-channel VAE (Rombach et al. 2022).

Version 2 has another encoder and linear layers where the first has 1×1 convolutions; its modules say so themselves.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

import torch
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from torch import Tensor
from transformers import CLIPTextModel

from domains.inference.on_device.family import Conditions, EncodedPrompt, KeepOn, SizePx, StepRows
from domains.inference.on_device.latent_codec import LatentCodec
from domains.inference.on_device.transformer import KeysValues
from domains.inference.on_device.unet import TextKeys, UNet
from domains.inference.on_device.words import Words
from domains.model.on_device import OnDeviceModel


@dataclass(frozen=True, kw_only=True, eq=False)
class Sd1Conditions:
    """The text, as each cross-attention layer reads it."""

    guidance: float
    keys: TextKeys
    """Keys of one row; of two, unconditional first, with guidance."""
    guided: bool

    def tensors(self) -> Sequence[Tensor]:
        """See `Conditions`."""
        return [tensor for layer in self.keys for pair in layer for tensor in pair]

    def rows(self, images: int) -> TextKeys:
        """Each row once an image: (u, c) → (u, u, c, c)."""
        if images == 1:
            return self.keys
        return [[_repeated(pair, images) for pair in layer] for layer in self.keys]


def _repeated(pair: KeysValues, images: int) -> KeysValues:
    return pair[0].repeat_interleave(images, 0), pair[1].repeat_interleave(images, 0)


class Sd1(LatentCodec):
    """See `Family`."""

    def __init__(self, loaded: OnDeviceModel) -> None:
        super().__init__(loaded)
        self._unet = UNet(cast(UNet2DConditionModel, loaded.modules["unet"]))
        self._text = cast(CLIPTextModel, loaded.modules["text_encoder"])
        self._words = Words(loaded.tokenizers["text_encoder"])

    def encode(self, prompt: str) -> EncodedPrompt:
        ids = self._words.ids(prompt)
        return self._words.encoded(prompt, self._text(ids.to(self._device)).last_hidden_state)

    def conditions(
        self, positive: EncodedPrompt, negative: EncodedPrompt | None, guidance: float, size_px: SizePx
    ) -> Conditions:
        states = positive.states if negative is None else torch.cat([negative.states, positive.states])
        return Sd1Conditions(guidance=guidance, keys=self._unet.text_keys(states), guided=negative is not None)

    def denoise(self, group: Sequence[StepRows], keep_on: KeepOn) -> list[Tensor]:
        return [self._denoise(rows, cast(Sd1Conditions, rows.conditions), keep_on) for rows in group]

    def _denoise(self, rows: StepRows, text: Sd1Conditions, keep_on: KeepOn) -> Tensor:
        latents = rows.latents.to(self._unet.dtype, memory_format=torch.channels_last)
        output = self._unet(latents, rows.timestep, text.rows(rows.latents.shape[0]), keep_on).float()
        if not text.guided:
            return output
        without, with_text = output.chunk(2)
        return without + text.guidance * (with_text - without)
