"""How the weights of a component are stored: the mix of precisions, in torch's words."""

from collections import Counter
from collections.abc import Iterable

from domains.model.safetensors_header import TensorEntry

PRECISION = {
    **{"F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16"},
    **{"F8_E4M3": "float8_e4m3fn", "F8_E5M2": "float8_e5m2"},
    **{"F8_E4M3FNUZ": "float8_e4m3fnuz", "F8_E5M2FNUZ": "float8_e5m2fnuz"},
}
"""Stored floating-point dtypes in torch's words. Other tensors (index buffers, unused bytes) have no precision."""

Mix = tuple[tuple[str, int], ...]
"""Number of weights by precision, the most frequent first."""


def mix_of(tensors: Iterable[TensorEntry]) -> Mix:
    """The mix of precisions. Empty tensors and buffers of integers do not count."""
    counts = Counter[str]()
    for tensor in tensors:
        if tensor.dtype in PRECISION and tensor.elements:
            counts[PRECISION[tensor.dtype]] += tensor.elements
    return tuple(sorted(counts.items(), key=lambda one: (-one[1], one[0])))


def text_of(mix: Mix) -> str:
    """The mix in a message: `float16 98.2 %, float32 1.8 %`."""
    total = sum(count for _, count in mix)
    return ", ".join(f"{name} {100 * count / total:.3g} %" for name, count in mix)
