"""Computes a diffusers VAE decoder with its modules and weights, its blocks as in the UNet."""

from typing import Any

import torch.nn.functional as F  # noqa: N812 (the name torch's own documentation uses)
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from torch import Tensor

from domains.errors import ErrorReason, FailedPrecondition
from domains.inference.on_device.family import KeepOn, regardless
from domains.inference.on_device.resnet import Resnet
from domains.inference.on_device.slices import attention, conv, linear, upsampled


class VaeDecoder:
    """Decodes latents to pictures, without the latents' scale."""

    def __init__(self, vae: AutoencoderKL) -> None:
        """Raises MODEL_INCOMPATIBLE for a decoder with other blocks or attention."""
        self._vae: Any = vae
        self._middle = [Resnet(module) for module in self._vae.decoder.mid_block.resnets]
        for attend in self._vae.decoder.mid_block.attentions:
            if attend is not None:
                _refuse_others(attend)
        self._levels = [
            ([Resnet(module) for module in block.resnets], block.upsamplers[0] if block.upsamplers else None)
            for block in self._vae.decoder.up_blocks
        ]

    def __call__(self, latents: Tensor, keep_on: KeepOn = regardless) -> Tensor:
        """(rows, channels, h, w), channels last → (rows, 3, 8h, 8w) in −1..1, about."""
        decoder = self._vae.decoder
        if self._vae.post_quant_conv is not None:
            latents = self._vae.post_quant_conv(latents)
        hidden = self._middle[0](decoder.conv_in(latents), keep_on=keep_on)
        for attend, resnet in zip(decoder.mid_block.attentions, self._middle[1:], strict=True):
            hidden = resnet(hidden if attend is None else _attended(attend, hidden, keep_on), keep_on=keep_on)
        for resnets, upsample in self._levels:
            for resnet in resnets:
                hidden = resnet(hidden, keep_on=keep_on)
            hidden = hidden if upsample is None else upsampled(upsample, hidden, keep_on)
        keep_on()
        return conv(decoder.conv_out, F.silu(decoder.conv_norm_out(hidden), inplace=True), keep_on)


def _attended(module: Any, x: Tensor, keep_on: KeepOn) -> Tensor:
    """Diffusers' `Attention` of a picture (rows, channels, h, w) to itself, as its `AttnProcessor2_0` computes it."""
    states = module.group_norm(x.flatten(2))
    # (rows, tokens, width)
    states = states.transpose(1, 2)
    query, key, value = (
        linear(states, layer.weight, layer.bias, keep_on).unflatten(-1, (module.heads, -1)).transpose(1, 2)
        for layer in (module.to_q, module.to_k, module.to_v)
    )
    found = attention(query, key, value, keep_on).transpose(1, 2).flatten(2)
    out = linear(found, module.to_out[0].weight, module.to_out[0].bias, keep_on)
    hidden = out.transpose(1, 2).unflatten(2, x.shape[2:])
    return (hidden + x if module.residual_connection else hidden) / module.rescale_output_factor


def _refuse_others(module: Any) -> None:
    plain = (
        module.spatial_norm is None
        and module.group_norm is not None
        and not (module.norm_q or module.norm_k or module.norm_cross)
    )
    if not plain:
        message = "the model's VAE attends in a way that Stable Diffusion 1.x does not have"
        raise FailedPrecondition(message, ErrorReason.MODEL_INCOMPATIBLE, part="Attention")
