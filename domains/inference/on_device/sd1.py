"""Stable Diffusion 1.x: CLIP text encoder, UNet, 4-channel VAE (Rombach et al. 2022)."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from torch import Tensor
from transformers import CLIPTextModel

from domains.inference.on_device import attention
from domains.inference.on_device.family import Conditions, EncodedPrompt, StepRows, as_pixels
from domains.inference.on_device.latent_colours import LatentColours
from domains.model.on_device import OnDeviceModel


@dataclass(frozen=True, kw_only=True, eq=False)
class Sd1Conditions:
    """The text, as each cross-attention layer reads it."""

    guidance: float
    states: Tensor
    """(1 or 2, tokens, width): unconditional first, if there is guidance."""
    keys: attention.TextKeys

    def tensors(self) -> Sequence[Tensor]:
        """See `Conditions`."""
        own = [self.states] if self.states.shape[0] == 2 else []  # a single row is the prompt cache's
        return [*own, *(tensor for pair in self.keys.values() for tensor in pair)]


class Sd1:
    """See `Family`."""

    def __init__(self, loaded: OnDeviceModel) -> None:
        self._loaded = loaded
        self._unet = cast(UNet2DConditionModel, loaded.modules["unet"])
        self._vae = cast(AutoencoderKL, loaded.modules["vae"])
        self._text = cast(CLIPTextModel, loaded.modules["text_encoder"])
        self._colours = LatentColours(self._vae)
        attention.install(self._unet)

    def encode(self, prompt: str) -> EncodedPrompt:
        words = self._loaded.tokenizer
        room = words.model_max_length
        whole = len(words(prompt, truncation=False, verbose=False).input_ids)
        ids = words(prompt, padding="max_length", max_length=room, truncation=True, return_tensors="pt").input_ids
        states = self._text(ids.to(self._loaded.device)).last_hidden_state
        return EncodedPrompt(states=states, tokens=whole, tokens_read=min(whole, room))

    def conditions(self, positive: EncodedPrompt, negative: EncodedPrompt | None, guidance: float) -> Conditions:
        states = positive.states if negative is None else torch.cat([negative.states, positive.states])
        keys = attention.text_keys(self._unet, states)
        return Sd1Conditions(guidance=1.0 if negative is None else guidance, states=states, keys=keys)

    def latent_shape(self, width_px: int, height_px: int) -> tuple[int, int, int]:
        scale = 2 ** (len(self._vae.config.block_out_channels) - 1)
        return self._vae.config.latent_channels, height_px // scale, width_px // scale

    def denoise(self, group: Sequence[StepRows]) -> list[Tensor]:
        return [self._denoise(rows, cast(Sd1Conditions, rows.conditions)) for rows in group]

    def _denoise(self, rows: StepRows, text: Sd1Conditions) -> Tensor:
        images = rows.latents.shape[0]
        guided = text.states.shape[0] == 2
        latents = rows.latents.to(self._unet.dtype)
        output = self._unet(
            (torch.cat([latents, latents]) if guided else latents).contiguous(memory_format=torch.channels_last),
            rows.timestep,
            encoder_hidden_states=text.states,
            cross_attention_kwargs={"text_keys": attention.repeated(text.keys, images)},
            return_dict=False,
        )[0].float()
        if not guided:
            return output
        without, with_text = output.chunk(2)
        return without + text.guidance * (with_text - without)

    def decode(self, latents: Tensor) -> Tensor:
        return as_pixels(self._vae.decode(self._unscaled(latents), return_dict=False)[0])[0]

    def preview(self, x0: Tensor, size: tuple[int, int]) -> Tensor:
        colours = self._colours.of(x0)
        return as_pixels(torch.nn.functional.interpolate(colours, size, mode="bilinear", align_corners=False))

    def _unscaled(self, latents: Tensor) -> Tensor:
        """What the VAE's decoder reads: in its dtype, without the factor that made the latents' variance about 1."""
        config = self._vae.config
        shift = getattr(config, "shift_factor", None) or 0.0
        unscaled = latents / config.scaling_factor + shift
        return unscaled.to(self._vae.dtype).contiguous(memory_format=torch.channels_last)
