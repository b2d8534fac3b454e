"""Long operations in slices, so that a job that is cancelled on a CPU is left within one of them.

Operations below `SLICED_FROM_FLOP` are computed as a whole. Sliced convolutions and attention of that size had the same
bits as the whole in every case that was tried; a sliced linear layer differs by rounding (measured: 3e-5 of values about
30), since the matrix product chooses its blocks by the number of rows. A size is always sliced the same way, so the same
request gives the same picture. On a GPU nothing is sliced: there `keep_on` is `regardless`.
"""

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812 (the name torch's own documentation uses)
from torch import Tensor

from domains.inference.on_device.adapters import add_beside
from domains.inference.on_device.families.family import KeepOn, regardless
from domains.inference.on_device.networks.small_conv import is_small, small_conv
from domains.inference.on_device.wrapping import wrapped_conv, wraps_now, zero_padded
from domains.model.on_device import weight_shape

SLICED_FROM_FLOP = 2**38
"""About 4 s of two cores. No operation of Stable Diffusion 1.x at 512×512 is longer, but the VAE's last upsampling."""
PIECE_FLOP = 2**37
"""About 2 s of two cores."""
_AREA_OF_TWICE = 4
"""How much larger the area of a picture of twice the size is."""
_FEWEST_QUERIES = 64
"""Fewer queries in a slice would read keys and values more often than they compute with them."""


def attention(query: Tensor, key: Tensor, value: Tensor, keep_on: KeepOn) -> Tensor:
    """`scaled_dot_product_attention` of (rows, heads, tokens, head width)."""
    size = _slice_size(query.shape[2], 4 * query.numel() * key.shape[2], keep_on, _FEWEST_QUERIES)
    if size >= query.shape[2]:
        keep_on()
        return F.scaled_dot_product_attention(query, key, value)

    def part(begin: int, end: int) -> Tensor:
        return F.scaled_dot_product_attention(query[:, :, begin:end], key, value)

    return _joined(2, query.shape[2], size, part, keep_on)


def linear(x: Tensor, weight: Tensor, bias: Tensor | None, keep_on: KeepOn) -> Tensor:
    """A linear layer on (rows, tokens, width)."""
    size = _slice_size(x.shape[1], 2 * x.numel() * weight.shape[0], keep_on)
    if size >= x.shape[1]:
        keep_on()
        return F.linear(x, weight, bias)
    return _joined(1, x.shape[1], size, lambda begin, end: F.linear(x[:, begin:end], weight, bias), keep_on)


def conv(layer: Any, x: Tensor, keep_on: KeepOn) -> Tensor:
    """A `Conv2d`, in bands of whole lines; as a whole where edges fit together."""
    if wraps_now():
        keep_on()
        return wrapped_conv(layer, x)
    height, (lines, columns) = x.shape[2], _size_after(layer, x.shape)
    size = _slice_size(lines, 2 * x.shape[0] * lines * columns * weight_shape(layer).numel(), keep_on)
    if size >= lines or layer.padding_mode != "zeros" or layer.dilation != (1, 1):
        keep_on()
        return small_conv(layer, x) if is_small(layer, x) else layer(x)
    kernel, stride, pad = layer.kernel_size[0], layer.stride[0], layer.padding[0]
    weight = layer.weight

    def band(begin: int, end: int) -> Tensor:
        top, bottom = begin * stride - pad, (end - 1) * stride - pad + kernel
        part = F.pad(x[:, :, max(top, 0) : bottom], (0, 0, max(-top, 0), max(bottom - height, 0)))
        return F.conv2d(part, weight, layer.bias, layer.stride, (0, layer.padding[1]), groups=layer.groups)

    return add_beside(layer, x, _joined(2, lines, size, band, keep_on))


def downsampled(module: Any, x: Tensor, keep_on: KeepOn) -> Tensor:
    """A diffusers `Downsample2D`. That of a VAE adds a line and a column at the end."""
    if module.use_conv and module.norm is None:
        return conv(module.conv, x if module.padding else zero_padded(x, (0, 1, 0, 1)), keep_on)
    keep_on()
    return module(x)


def upsampled(module: Any, x: Tensor, keep_on: KeepOn, size: tuple[int, int] | None = None) -> Tensor:
    """A diffusers `Upsample2D`; to twice the size, or to `size`."""
    height, width = size or (2 * x.shape[2], 2 * x.shape[3])
    plain = module.use_conv and module.interpolate and module.norm is None and module.name == "conv"
    flop = 2 * x.shape[0] * height * width * weight_shape(module.conv).numel() if plain else 0
    own = plain and (wraps_now() or is_small(module.conv, x, _AREA_OF_TWICE))
    if _slice_size(height, flop, keep_on) >= height and not own:
        keep_on()
        return module(x) if size is None else module(x, size)
    keep_on()
    if 2 * x.numel() > 2**31:
        # As the module does: for more elements torch's channels-last kernel returns wrong values (pytorch issue 141831).
        x = x.contiguous()
    return conv(module.conv, F.interpolate(x, size=(height, width), mode="nearest"), keep_on)


def _size_after(layer: Any, shape: torch.Size) -> tuple[int, int]:
    """Lines and columns of a convolution's result."""
    edges = zip(shape[2:], layer.padding, layer.kernel_size, layer.stride, strict=True)
    lines, columns = ((edge + 2 * pad - kernel) // stride + 1 for edge, pad, kernel, stride in edges)
    return lines, columns


def _slice_size(length: int, flop: int, keep_on: KeepOn, fewest: int = 1) -> int:
    """How much of a dimension is computed at once."""
    if keep_on is regardless or flop <= SLICED_FROM_FLOP:
        return length
    return min(length, max(fewest, length * PIECE_FLOP // flop))


def _joined(dim: int, length: int, size: int, compute: Callable[[int, int], Tensor], keep_on: KeepOn) -> Tensor:
    """What `compute` makes of each slice (begin, end) of a dimension, in one tensor. A look before each."""
    keep_on()
    first = compute(0, size)
    result = _room(first, dim, length)
    result.narrow(dim, 0, size).copy_(first)
    for begin in range(size, length, size):
        keep_on()
        end = min(begin + size, length)
        result.narrow(dim, begin, end - begin).copy_(compute(begin, end))
    return result


def _room(part: Tensor, dim: int, length: int) -> Tensor:
    """An empty tensor like a slice, as long as the whole, in the slice's layout."""
    shape = list(part.shape)
    shape[dim] = length
    if part.dim() == 4 and part.is_contiguous(memory_format=torch.channels_last):
        return torch.empty(shape, dtype=part.dtype, device=part.device, memory_format=torch.channels_last)
    return part.new_empty(shape)
