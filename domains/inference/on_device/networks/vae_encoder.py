"""Computes a diffusers VAE encoder with its modules and weights, its blocks as in the decoder."""

from typing import Any

import torch.nn.functional as F  # noqa: N812 (the name torch's own documentation uses)
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from torch import Tensor

from domains.errors import ErrorReason, FailedPrecondition
from domains.inference.on_device.families.family import KeepOn, regardless
from domains.inference.on_device.networks.resnet import Resnet
from domains.inference.on_device.networks.slices import conv, downsampled
from domains.inference.on_device.networks.vae_attention import attended, refuse_other_attention


class VaeEncoder:
    """Encodes pictures to the mean and the logarithm of the variance of their latents, without the latents' scale."""

    def __init__(self, vae: AutoencoderKL) -> None:
        """Raises MODEL_INCOMPATIBLE for an encoder with other blocks or attention."""
        self._vae: Any = vae
        encoder = self._vae.encoder
        if not all(hasattr(block, "downsamplers") for block in encoder.down_blocks):
            message = "the model's VAE has an encoder of other blocks than Stable Diffusion 1.x"
            raise FailedPrecondition(message, ErrorReason.MODEL_INCOMPATIBLE, part="Encoder")
        for attend in encoder.mid_block.attentions:
            if attend is not None:
                refuse_other_attention(attend)
        self._levels = [
            ([Resnet(module) for module in block.resnets], block.downsamplers[0] if block.downsamplers else None)
            for block in encoder.down_blocks
        ]
        self._middle = [Resnet(module) for module in encoder.mid_block.resnets]

    def __call__(self, pictures: Tensor, keep_on: KeepOn = regardless) -> tuple[Tensor, Tensor]:
        """(rows, 3, h, w) in −1..1, channels last → mean and log variance, each (rows, channels, h/8, w/8)."""
        encoder = self._vae.encoder
        hidden = conv(encoder.conv_in, pictures, keep_on)
        for resnets, downsample in self._levels:
            for resnet in resnets:
                hidden = resnet(hidden, keep_on=keep_on)
            hidden = hidden if downsample is None else downsampled(downsample, hidden, keep_on)
        hidden = self._middle[0](hidden, keep_on=keep_on)
        for attend, resnet in zip(encoder.mid_block.attentions, self._middle[1:], strict=True):
            hidden = resnet(hidden if attend is None else attended(attend, hidden, keep_on), keep_on=keep_on)
        keep_on()
        moments = conv(encoder.conv_out, F.silu(encoder.conv_norm_out(hidden), inplace=True), keep_on)
        if self._vae.quant_conv is not None:
            moments = self._vae.quant_conv(moments)
        mean, log_variance = moments.chunk(2, dim=1)
        return mean, log_variance
