"""Tells quantized weights: numbers that mean something only together with scales, which a change of precision would lose.

Layouts: SDNQ, bitsandbytes and torchao name their method in the config (`quantization_config`); files without a config keep
the scales beside the weights (`scale_weight` of ComfyUI, `weight_scale` of compressed-tensors, `absmax` of bitsandbytes,
`qweight` of GPTQ and AWQ).
"""

from collections.abc import Iterable, Mapping
from typing import Any, cast

from domains.errors import excerpt
from domains.model.safetensors_header import TensorEntry

_FEW_BITS = ("I8", "U8", "I16", "I32", "F8_E4M3", "F8_E5M2", "F8_E4M3FNUZ", "F8_E5M2FNUZ", "F8_E8M0", "F4", "F6_E2M3")
_BESIDE = ("scale_weight", "weight_scale", "scale", "zero_point", "weight.absmax", "svd_up", "qzeros", "scales")
"""Last parts of the names of what belongs to a quantized weight."""
_PACKED = ("qweight", "qzeros")
"""Names of weights that are always packed."""


def quantization_of(config: Mapping[str, Any]) -> str:
    """The method that a component's config names. Empty: none."""
    named: object = config.get("quantization_config")
    if not isinstance(named, dict):
        return "an unnamed method" if named else ""
    return excerpt(cast(dict[str, object], named).get("quant_method") or "an unnamed method")


def quantized_tensor(tensors: Iterable[TensorEntry]) -> str:
    """The name of a quantized weight among the tensors. Empty: there is none."""
    by_name = {tensor.name: tensor for tensor in tensors}
    for name, tensor in by_name.items():
        stem, _, leaf = name.rpartition(".")
        if leaf in _PACKED:
            return name
        few = leaf == "weight" and tensor.dtype in _FEW_BITS and len(tensor.shape) > 1
        if few and (tensor.dtype[0] in "IU" or any(f"{stem}.{other}" in by_name for other in _BESIDE)):
            return name
    return ""
