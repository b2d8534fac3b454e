"""Computes a diffusers VAE decoder with its modules and weights, its blocks as in the UNet."""

from typing import Any

import torch.nn.functional as F  # noqa: N812 (the name torch's own documentation uses)
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from torch import Tensor

from domains.inference.on_device.families.family import KeepOn, regardless
from domains.inference.on_device.networks.resnet import Resnet
from domains.inference.on_device.networks.slices import conv, upsampled
from domains.inference.on_device.networks.vae_attention import attended, refuse_other_attention


class VaeDecoder:
    """Decodes latents to pictures, without the latents' scale."""

    def __init__(self, vae: AutoencoderKL) -> None:
        """Raises MODEL_INCOMPATIBLE for a decoder with other blocks or attention."""
        self._vae: Any = vae
        self._middle = [Resnet(module) for module in self._vae.decoder.mid_block.resnets]
        for attend in self._vae.decoder.mid_block.attentions:
            if attend is not None:
                refuse_other_attention(attend)
        self._levels = [
            ([Resnet(module) for module in block.resnets], block.upsamplers[0] if block.upsamplers else None)
            for block in self._vae.decoder.up_blocks
        ]

    def __call__(self, latents: Tensor, keep_on: KeepOn = regardless) -> Tensor:
        """(rows, channels, h, w), channels last → (rows, 3, 8h, 8w) in −1..1, about."""
        decoder = self._vae.decoder
        if self._vae.post_quant_conv is not None:
            latents = conv(self._vae.post_quant_conv, latents, regardless)
        hidden = self._middle[0](conv(decoder.conv_in, latents, regardless), keep_on=keep_on)
        for attend, resnet in zip(decoder.mid_block.attentions, self._middle[1:], strict=True):
            hidden = resnet(hidden if attend is None else attended(attend, hidden, keep_on), keep_on=keep_on)
        for resnets, upsample in self._levels:
            for resnet in resnets:
                hidden = resnet(hidden, keep_on=keep_on)
            hidden = hidden if upsample is None else upsampled(upsample, hidden, keep_on)
        keep_on()
        return conv(decoder.conv_out, F.silu(decoder.conv_norm_out(hidden), inplace=True), keep_on)
