"""How the weights of a component are stored: the mix of precisions, in torch's words."""

from collections import Counter
from collections.abc import Iterable

import msgspec

from domains.model.safetensors_header import DTYPE_BITS, TensorEntry

PRECISION = {
    **{"F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16"},
    **{"F8_E4M3": "float8_e4m3fn", "F8_E5M2": "float8_e5m2"},
    **{"F8_E4M3FNUZ": "float8_e4m3fnuz", "F8_E5M2FNUZ": "float8_e5m2fnuz"},
}
"""Stored floating-point dtypes in torch's words. Other tensors (index buffers, unused bytes) have no precision."""

Mix = tuple[tuple[str, int], ...]
"""Number of weights by precision, the most frequent first."""


class Amounts(msgspec.Struct, frozen=True, kw_only=True):
    """How much some tensors hold."""

    bytes: int
    elements: int
    mix: Mix
    """Empty tensors and buffers of integers do not count."""


def amounts_of(tensors: Iterable[TensorEntry]) -> Amounts:
    """The sums over some tensors."""
    size_of = Counter[str]()
    for tensor in tensors:
        size_of[tensor.dtype] += tensor.end - tensor.begin
    elements = {dtype: size * 8 // DTYPE_BITS[dtype] for dtype, size in size_of.items()}
    mix = [(PRECISION[dtype], count) for dtype, count in elements.items() if dtype in PRECISION and count]
    return Amounts(
        bytes=sum(size_of.values()),
        elements=sum(elements.values()),
        mix=tuple(sorted(mix, key=lambda one: (-one[1], one[0]))),
    )


def text_of(mix: Mix) -> str:
    """The mix in a message: `float16 98.2 %, float32 1.8 %`."""
    total = sum(count for _, count in mix)
    return ", ".join(f"{name} {100 * count / total:.3g} %" for name, count in mix)
