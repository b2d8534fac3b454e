"""Diffusers' spatial transformer, with one product for query, key and value, and text keys computed once a job.

The text does not change between steps, so its keys and values in each cross-attention layer do not either. Pictures
stay channels-last throughout: then tokens are a view of them, and a 1×1 convolution is a linear layer.

With guidance both rows of a picture are equal until the text first enters. So pictures come in once, and become rows there.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, cast

import torch
import torch.nn.functional as F  # noqa: N812 (the name torch's own documentation uses)
from diffusers.models.transformers.transformer_2d import Transformer2DModel
from torch import Tensor, nn

from domains.errors import ErrorReason, FailedPrecondition
from domains.inference.on_device.adapters import add_beside
from domains.inference.on_device.cross_reads import Beside, KeysValues, read_beside
from domains.inference.on_device.families.family import KeepOn, regardless
from domains.inference.on_device.networks.announcing import announce
from domains.inference.on_device.networks.block_code import code_of
from domains.inference.on_device.networks.order import in_order_of
from domains.inference.on_device.networks.slices import SLICED_FROM_FLOP, attention, linear
from domains.inference.on_device.rows import in_rows
from domains.model.on_device import codes_of, has_codes, weight_dtype, widened


class Transformer:
    """Self-attention and cross-attention to the text, at one resolution."""

    def __init__(self, module: Transformer2DModel) -> None:
        """Raises MODEL_INCOMPATIBLE for blocks of another kind."""
        self._module: Any = module
        self._blocks = [_Block(block) for block in self._module.transformer_blocks]

    @property
    def cross_layers(self) -> Sequence[Any]:
        """The attention layers that read the text."""
        return [block.cross for block in self._blocks]

    @property
    def blocks(self) -> int:
        """Number of layers that read the text."""
        return len(self._blocks)

    def text_keys(self, states: Tensor) -> list[KeysValues]:
        """Keys and values that the layers compute from text states (rows, tokens, width)."""
        return [block.text_keys(states) for block in self._blocks]

    def __call__(
        self,
        x: Tensor,
        text: Sequence[KeysValues],
        beside: Sequence[Sequence[Beside]] = (),
        keep_on: KeepOn = regardless,
    ) -> Tensor:
        """x: (pictures, or rows of the text, channels, h, w); beside: for each layer, what some rows read beside the text.
        Returns the text's rows in the order of x. Raises what `keep_on` raises."""
        height, width = x.shape[-2:]
        tokens = self._module.norm(x).permute(0, 2, 3, 1).flatten(1, 2)
        tokens = _linear(self._module.proj_in, tokens, keep_on)
        for block, keys, others in zip(self._blocks, text, beside or ((),) * len(text), strict=True):
            tokens = block(tokens, keys, others, (height, width), keep_on)
        hidden = _linear(self._module.proj_out, tokens, keep_on).unflatten(1, (height, width)).permute(0, 3, 1, 2)
        return in_order_of(x, hidden).add_(in_rows(x, hidden.shape[0]))


class _Block:
    """A diffusers BasicTransformerBlock; `Any`, as diffusers types its parts as possibly absent."""

    def __init__(self, block: Any) -> None:
        _refuse_others(block)
        self._block = block
        self._self_layers = (block.attn1.to_q, block.attn1.to_k, block.attn1.to_v)
        self._self_weight = _joined_weight(self._self_layers)

    @property
    def cross(self) -> Any:
        return self._block.attn2

    def text_keys(self, states: Tensor) -> KeysValues:
        announce(self._block)
        layer = self._block.attn2
        return heads_of(layer, layer.to_k(states)).contiguous(), heads_of(layer, layer.to_v(states)).contiguous()

    def __call__(
        self, tokens: Tensor, text: KeysValues, beside: Sequence[Beside], size: tuple[int, int], keep_on: KeepOn
    ) -> Tensor:
        announce(self._block)
        code = code_of(self._block)
        # Where rows become more, few blocks compute; what some rows read beside the text is no input of the code.
        if code is None or beside or len(tokens) != len(text[0]) or _is_long(tokens, keep_on):
            return self._computed(tokens, text, beside, size, keep_on)
        keep_on()
        usual = partial(self._computed, tokens, text, beside, size, keep_on)
        return code(self._weights(), self._settings, tokens, *text, usual=usual)

    def _computed(
        self, tokens: Tensor, text: KeysValues, beside: Sequence[Beside], size: tuple[int, int], keep_on: KeepOn
    ) -> Tensor:
        block = self._block
        x = block.norm1(tokens)
        states = linear(x, self._self_weight(), None, keep_on).chunk(3, dim=-1)
        query, key, value = (add_beside(one, x, part) for one, part in zip(self._self_layers, states, strict=True))
        layer = block.attn1
        query, key, value = (heads_of(layer, states) for states in (query, key, value))
        tokens = _put_out(layer, attention(query, key, value, keep_on), keep_on).add_(tokens)
        layer = block.attn2
        keys, values = text
        query = in_rows(heads_of(layer, _linear(layer.to_q, block.norm2(tokens), keep_on)), keys.shape[0])
        found = attention(query, keys, values, keep_on)
        read_beside(found, query, beside, size, keep_on)
        tokens = _put_out(layer, found, keep_on).add_(in_rows(tokens, keys.shape[0]))
        hidden, gate = _linear(block.ff.net[0].proj, block.norm3(tokens), keep_on).chunk(2, dim=-1)
        return _linear(block.ff.net[2], F.gelu(gate).mul_(hidden), keep_on).add_(tokens)

    @property
    def _settings(self) -> tuple[Any, ...]:
        """What `block_outputs` needs to know beside weights: heads of both attentions, then of each norm its shape and ε."""
        block = self._block
        norms = [(tuple(norm.normalized_shape), norm.eps) for norm in (block.norm1, block.norm2, block.norm3)]
        return (block.attn1.heads, block.attn2.heads, *norms)

    def _weights(self) -> Sequence[Tensor | None]:
        """What `block_outputs` reads, in its order."""
        block = self._block
        layers = (block.attn1.to_out[0], block.attn2.to_out[0], block.ff.net[0].proj, block.ff.net[2])
        norms = (block.norm1, block.norm2, block.norm3)
        pairs = [one for layer in (*norms, *layers) for one in (layer.weight, layer.bias)]
        return [self._self_weight(), block.attn2.to_q.weight, *pairs]


def block_outputs(
    weights: Sequence[Tensor | None], settings: tuple[Any, ...], tokens: Tensor, keys: Tensor, values: Tensor
) -> Tensor:
    """What a block computes of tokens (rows, tokens, width), as a function of its weights alone, for a compiler."""
    own_heads, heads, *norms = settings
    own, asking, *pairs = weights
    one, two, three, own_out, out, up, down = zip(pairs[::2], pairs[1::2], strict=True)

    def normed(place: int, pair: tuple[Tensor | None, Tensor | None]) -> Tensor:
        shape, eps = norms[place]
        return F.layer_norm(tokens, shape, *pair, eps)

    def in_heads(states: Tensor, count: int) -> Tensor:
        return states.unflatten(-1, (count, -1)).transpose(1, 2)

    def put_out(found: Tensor, pair: Any) -> Tensor:
        return F.linear(found.transpose(1, 2).flatten(2), *pair)

    states: Any = F.linear(normed(0, one), cast(Tensor, own)).chunk(3, dim=-1)
    query, key, value = (in_heads(part, own_heads) for part in states)
    found = F.scaled_dot_product_attention(query, key, value)
    tokens = put_out(found, own_out) + tokens
    query = in_heads(F.linear(normed(1, two), cast(Tensor, asking)), heads)
    tokens = put_out(F.scaled_dot_product_attention(query, keys, values), out) + tokens
    hidden, gate = F.linear(normed(2, three), *cast(Any, up)).chunk(2, dim=-1)
    return F.linear(F.gelu(gate) * hidden, *cast(Any, down)) + tokens


def _is_long(tokens: Tensor, keep_on: KeepOn) -> bool:
    """Whether attention among tokens would be computed in slices, between which a job can be cancelled."""
    return keep_on is not regardless and 4 * tokens.numel() * tokens.shape[1] > SLICED_FROM_FLOP


def _put_out(layer: Any, found: Tensor, keep_on: KeepOn) -> Tensor:
    """An attention's output from what its heads found (rows, heads, tokens, head width)."""
    return _linear(layer.to_out[0], found.transpose(1, 2).flatten(2), keep_on)


def heads_of(layer: Any, states: Tensor) -> Tensor:
    """(rows, tokens, width) → (rows, heads, tokens, head width)."""
    return states.unflatten(-1, (layer.heads, -1)).transpose(1, 2)


def _linear(layer: Any, tokens: Tensor, keep_on: KeepOn) -> Tensor:
    """A linear layer, or the 1×1 convolution that SD 1.x has in its place."""
    weight, bias = layer.weight, layer.bias
    output = linear(tokens, weight.flatten(1) if isinstance(layer, nn.Conv2d) else weight, bias, keep_on)
    return add_beside(layer, tokens, output)


def _joined_weight(layers: Sequence[Any]) -> Callable[[], Tensor]:
    """Makes the weight of layers that compute as one. Codes are joined here, and widened for each product."""
    if not all(map(has_codes, layers)):
        whole = joined([layer.weight for layer in layers])
        return lambda: whole
    codes, dtype = joined([codes_of(layer)[0] for layer in layers]), weight_dtype(layers[0])

    def widen() -> Tensor:
        # Read each time: those of a streamed layer have other values after each copy.
        scales = [one for one in (codes_of(layer)[1] for layer in layers) if one is not None]
        return widened(codes, torch.cat(scales) if scales else None, dtype)

    return widen


def joined(parameters: Sequence[Tensor]) -> Tensor:
    """Parameters in one tensor, one below the other. They become views of it, so the memory is there once."""
    if (whole := _adjacent(parameters)) is not None:
        return whole
    whole = torch.cat([parameter.data for parameter in parameters])
    for parameter, part in zip(parameters, whole.split([len(p) for p in parameters]), strict=True):
        parameter.data = part
    return whole


def _adjacent(parameters: Sequence[Tensor]) -> Tensor | None:
    """The tensor that parameters already are, if they lie one behind the other in one allocation."""
    first, offset = parameters[0], parameters[0].storage_offset()
    for parameter in parameters:
        beside = parameter.untyped_storage().data_ptr() == first.untyped_storage().data_ptr()
        alike = parameter.shape[1:] == first.shape[1:] and parameter.dtype == first.dtype and parameter.is_contiguous()
        if not (beside and alike and parameter.storage_offset() == offset):
            return None
        offset += parameter.numel()
    return first.data.as_strided((sum(map(len, parameters)), *first.shape[1:]), first.stride())


def _refuse_others(block: Any) -> None:
    layers = [layer for layer in (block.attn1, block.attn2) if layer is not None]
    plain = (
        len(layers) == 2
        and getattr(block, "norm_type", "layer_norm") == "layer_norm"
        and not block.only_cross_attention
        and all(layer.to_q.bias is None and layer.rescale_output_factor == 1 for layer in layers)
        and not any(layer.norm_q or layer.norm_cross or layer.group_norm for layer in layers)
        and hasattr(block.ff.net[0], "proj")
    )
    if not plain:
        message = "the model's attention blocks are of a kind that Stable Diffusion 1.x does not have"
        raise FailedPrecondition(message, ErrorReason.MODEL_INCOMPATIBLE, part="BasicTransformerBlock")
