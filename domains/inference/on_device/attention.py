"""Attention for diffusers' UNets: one product for query, key and value, and text keys that are computed once a job.

The text never changes between steps, so its keys and values in each cross-attention layer do not either. They travel
in `cross_attention_kwargs` as `text_keys`; each layer finds its own by name.
"""

from collections.abc import Mapping

import torch
import torch.nn.functional as F  # noqa: N812 (what torch's own documentation calls it)
from diffusers import UNet2DConditionModel
from diffusers.models.attention_processor import Attention
from torch import Tensor

TextKeys = Mapping[str, tuple[Tensor, Tensor]]
"""Layer name → its keys and values, each (rows, heads, tokens, head width)."""


def install(unet: UNet2DConditionModel) -> None:
    """Give every attention layer of a UNet our processors."""
    processors: dict[str, object] = {}
    for name, layer in _layers(unet).items():
        processors[f"{name}.processor"] = CrossAttention(name) if layer.is_cross_attention else SelfAttention(layer)
    unet.set_attn_processor(processors)


def text_keys(unet: UNet2DConditionModel, states: Tensor) -> TextKeys:
    """Keys and values of text states (rows, tokens, width) in every cross-attention layer."""
    return {
        name: (_heads(layer, layer.to_k(states)).contiguous(), _heads(layer, layer.to_v(states)).contiguous())
        for name, layer in _layers(unet).items()
        if layer.is_cross_attention
    }


def repeated(keys: TextKeys, images: int) -> TextKeys:
    """Each row `images` times in turn: (a, b) → (a, a, b, b)."""
    if images == 1:
        return keys
    return {name: (k.repeat_interleave(images, 0), v.repeat_interleave(images, 0)) for name, (k, v) in keys.items()}


class SelfAttention:
    """A picture's attention to itself."""

    def __init__(self, layer: Attention) -> None:
        weights = [projection.weight for projection in (layer.to_q, layer.to_k, layer.to_v)]
        self._weight = torch.cat([weight.data for weight in weights])
        for weight, part in zip(weights, self._weight.chunk(3), strict=True):
            weight.data = part  # the layer keeps its names, the memory is there once

    def __call__(
        self,
        attn: Attention,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor | None = None,
        attention_mask: Tensor | None = None,
        *,
        text_keys: TextKeys | None = None,
    ) -> Tensor:
        query, key, value = F.linear(hidden_states, self._weight).chunk(3, dim=-1)
        found = F.scaled_dot_product_attention(_heads(attn, query), _heads(attn, key), _heads(attn, value))
        return _out(attn, found)


class CrossAttention:
    """A picture's attention to its text."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __call__(
        self,
        attn: Attention,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor | None = None,
        attention_mask: Tensor | None = None,
        *,
        text_keys: TextKeys,
    ) -> Tensor:
        key, value = text_keys[self._name]
        return _out(attn, F.scaled_dot_product_attention(_heads(attn, attn.to_q(hidden_states)), key, value))


def _layers(unet: UNet2DConditionModel) -> dict[str, Attention]:
    return {name: module for name, module in unet.named_modules() if isinstance(module, Attention)}


def _heads(attn: Attention, states: Tensor) -> Tensor:
    """(rows, tokens, width) → (rows, heads, tokens, head width)."""
    return states.unflatten(-1, (attn.heads, -1)).transpose(1, 2)


def _out(attn: Attention, found: Tensor) -> Tensor:
    return attn.to_out[0](found.transpose(1, 2).flatten(2))
