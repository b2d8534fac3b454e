"""Stable Diffusion 1.x: CLIP text encoder, UNet, 4-channel VAE (Rombach et al. 2022)."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from torch import Tensor
from transformers import CLIPTextModel

from domains.inference.on_device.family import Conditions, EncodedPrompt, KeepOn, StepRows, as_pixels, regardless
from domains.inference.on_device.latent_colours import LatentColours
from domains.inference.on_device.transformer import KeysValues
from domains.inference.on_device.unet import TextKeys, UNet
from domains.inference.on_device.vae_decoder import VaeDecoder
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


class Sd1:
    """See `Family`."""

    def __init__(self, loaded: OnDeviceModel) -> None:
        self._loaded = loaded
        vae: Any = loaded.modules["vae"]
        self._unet = UNet(cast(UNet2DConditionModel, loaded.modules["unet"]))
        self._text = cast(CLIPTextModel, loaded.modules["text_encoder"])
        self._vae = vae
        self._decoder = VaeDecoder(vae)
        self._colours = LatentColours(self._encoded, self._decoded, loaded.device)

    def encode(self, prompt: str) -> EncodedPrompt:
        words = self._loaded.tokenizer
        room = words.model_max_length
        whole = len(words(prompt, truncation=False, verbose=False).input_ids)
        ids = words(prompt, padding="max_length", max_length=room, truncation=True, return_tensors="pt").input_ids
        states = self._text(ids.to(self._loaded.device)).last_hidden_state
        return EncodedPrompt(states=states, tokens=whole, tokens_read=min(whole, room))

    def conditions(self, positive: EncodedPrompt, negative: EncodedPrompt | None, guidance: float) -> Conditions:
        states = positive.states if negative is None else torch.cat([negative.states, positive.states])
        return Sd1Conditions(guidance=guidance, keys=self._unet.text_keys(states), guided=negative is not None)

    def latent_shape(self, width_px: int, height_px: int) -> tuple[int, int, int]:
        scale = 2 ** (len(self._vae.config.block_out_channels) - 1)
        return self._vae.config.latent_channels, height_px // scale, width_px // scale

    def denoise(self, group: Sequence[StepRows], keep_on: KeepOn) -> list[Tensor]:
        return [self._denoise(rows, cast(Sd1Conditions, rows.conditions), keep_on) for rows in group]

    def _denoise(self, rows: StepRows, text: Sd1Conditions, keep_on: KeepOn) -> Tensor:
        latents = rows.latents.to(self._unet.dtype, memory_format=torch.channels_last)
        output = self._unet(latents, rows.timestep, text.rows(rows.latents.shape[0]), keep_on).float()
        if not text.guided:
            return output
        without, with_text = output.chunk(2)
        return without + text.guidance * (with_text - without)

    def decode(self, latents: Tensor, keep_on: KeepOn = regardless) -> Tensor:
        return as_pixels(self._decoded(latents, keep_on))[0]

    def prepare_previews(self) -> None:
        self._colours.fit()

    def preview(self, x0: Tensor, size: tuple[int, int]) -> Tensor:
        colours = self._colours.of(x0)
        return as_pixels(torch.nn.functional.interpolate(colours, size, mode="bilinear", align_corners=False))

    def _decoded(self, latents: Tensor, keep_on: KeepOn = regardless) -> Tensor:
        """Scaled latents → pictures in −1..1. The scale is what made the latents' variance about 1."""
        unscaled = latents / self._vae.config.scaling_factor
        return self._decoder(unscaled.to(self._vae.dtype, memory_format=torch.channels_last), keep_on)

    def _encoded(self, pictures: Tensor) -> Tensor:
        """Pictures in −1..1 → scaled latents, without the encoder's own noise."""
        inputs = pictures.to(self._vae.dtype, memory_format=torch.channels_last)
        return self._vae.encode(inputs).latent_dist.mean * self._vae.config.scaling_factor
