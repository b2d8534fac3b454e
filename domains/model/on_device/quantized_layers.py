"""Linear layers and convolutions whose weights lie on the device as codes of one byte, and are widened for each product.

`weight` of such a layer is made anew each time it is read, in the precision in which the layer computes: code that reads it
needs to know nothing of codes, but should read it once. `weight_shape` and `weight_dtype` tell of it without making it.

fp8_e4m3 rounds each weight to the nearest number of the format (OCP 8-bit Floating Point, 2023), as diffusers' layerwise
casting does: the error of a weight is at most 1/16 of it, or 2⁻¹⁰ for one below 2⁻⁶. int8 is symmetric, with the largest
magnitude of an output channel at 127: the error is at most half a step, 1/254 of that magnitude.
"""

from collections.abc import Mapping, Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn

from domains.model.weight_quantization import FP8_E4M3, INT8, is_quantized

CODES: Mapping[str, torch.dtype] = {FP8_E4M3: torch.float8_e4m3fn, INT8: torch.int8}
"""Dtype of the codes, by quantization."""
SCALE = "_scale"
"""End of the name of a weight's scales, behind that of the weight."""
_MOST = 127
_AT_ONCE = 2**22
"""Weights that are converted at once: what this takes beside them stays below 100 MB."""


def quantizes(module: nn.Module, name: str, shape: Sequence[int]) -> bool:
    """Whether a tensor of a denoiser becomes codes, by its name in the module."""
    if not is_quantized(name, shape):
        return False
    return type(module.get_submodule(name.rpartition(".")[0])) in _QUANTIZED


def hold_codes(layer: nn.Module, computed: torch.dtype, *, scaled: bool) -> None:
    """Have a layer on `meta` hold codes as its weight. `computed`: the dtype in which it computes. `scaled`: with scales."""
    owner: Any = layer
    channels = owner.weight.shape[0]
    owner.__class__ = _QUANTIZED[type(layer)]
    owner.computed = computed
    if scaled:
        empty = torch.empty(channels, dtype=torch.float32, device="meta")
        owner.register_parameter(f"weight{SCALE}", nn.Parameter(empty, requires_grad=False))


def put_codes(values: Tensor, codes: Tensor, scales: Tensor | None) -> None:
    """Write the codes of a weight (out, …), and its scales (out,) if the format has them, into their memory.

    A weight beyond the range becomes the largest number. One that is not finite does not become finite: what computes with
    it fails as it would without codes.
    """
    rows = max(1, _AT_ONCE * len(values) // max(1, values.numel()))
    for begin in range(0, len(values), rows):
        part = slice(begin, begin + rows)
        wide = values[part].float()
        if scales is None:
            most = torch.finfo(codes.dtype).max
            # The format has no infinity.
            codes[part].copy_(torch.where(wide.isfinite(), wide.clamp(-most, most), torch.nan))
            continue
        largest = wide.flatten(1).abs().amax(dim=1)
        # CUDA would multiply by the reciprocal of a plain number, which rounds otherwise than a CPU divides.
        scale = largest / torch.full_like(largest, _MOST)
        scales[part].copy_(scale)
        codes_of_part = wide / scale.view(-1, *[1] * (wide.dim() - 1))
        # Of a channel of zeros; and of what is not finite, which the channel's scale then tells.
        codes[part].copy_(codes_of_part.nan_to_num(0.0, 0.0, 0.0).round().clamp(-_MOST, _MOST))


def widened(codes: Tensor, scales: Tensor | None, dtype: torch.dtype) -> Tensor:
    """The weight that codes stand for, in the layout of the codes."""
    if scales is None:
        return codes.to(dtype)
    made = torch.empty_like(codes, dtype=dtype)
    # In float32, rounded once.
    return torch.mul(codes, scales.view(-1, *[1] * (codes.dim() - 1)), out=made)


def has_codes(layer: nn.Module) -> bool:
    """Whether a layer's weight is held as codes."""
    return type(layer) in _PLAIN


def codes_of(layer: Any) -> tuple[Tensor, Tensor | None]:
    """The codes of a layer that `has_codes`, and its scales, if it has some."""
    return layer._parameters["weight"], layer._parameters.get(f"weight{SCALE}")


def weight_shape(layer: Any) -> torch.Size:
    """The shape of a layer's weight."""
    return layer._parameters["weight"].shape


def weight_dtype(layer: Any) -> torch.dtype:
    """The dtype of a layer's weight, as the layer computes with it."""
    return layer.computed if has_codes(layer) else layer._parameters["weight"].dtype


def computed_dtype(module: nn.Module) -> torch.dtype | None:
    """The dtype in which a module computes: that of its first float that is no code. None: it has none."""
    dtypes = (one.dtype for one in module.parameters() if one.is_floating_point())
    return next((dtype for dtype in dtypes if dtype not in CODES.values()), None)


def _weight(layer: Any) -> Tensor:
    return widened(*codes_of(layer), layer.computed)


_QUANTIZED: Mapping[type[nn.Module], type[nn.Module]] = {
    kind: cast(type[nn.Module], type(f"Quantized{kind.__name__}", (kind,), {"weight": property(_weight)}))
    for kind in (nn.Linear, nn.Conv2d)
}
_PLAIN: Mapping[type[nn.Module], type[nn.Module]] = {coded: kind for kind, coded in _QUANTIZED.items()}
