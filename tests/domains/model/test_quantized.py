"""Quantized weights are told by the config, by their names, or by what lies beside them."""

import pytest

from domains.model.quantized import quantization_of, quantized_tensor
from domains.model.safetensors_header import TensorEntry


@pytest.mark.parametrize(
    ("config", "method"),
    [
        ({}, ""),
        ({"quantization_config": None}, ""),
        ({"quantization_config": {}}, "an unnamed method"),
        ({"quantization_config": "yes"}, "an unnamed method"),
        ({"quantization_config": {"quant_method": "sdnq"}}, "sdnq"),
        ({"quantization_config": {"quant_method": "x" * 257}}, "x" * 255 + "…"),
    ],
)
def test_a_config_names_its_method(config: dict[str, object], method: str) -> None:
    assert quantization_of(config) == method


@pytest.mark.parametrize(
    ("tensors", "found"),
    [
        ([("a.weight", "F16", (4, 4))], ""),
        ([("a.qweight", "I32", (4, 4))], "a.qweight"),
        ([("a.qzeros", "I32", (4, 4))], "a.qzeros"),
        ([("a.weight", "I8", (4, 4))], "a.weight"),
        ([("a.weight", "U8", (4, 4))], "a.weight"),
        ([("a.weight", "I8", (4,))], ""),
        ([("a.position_ids", "I64", (4, 4))], ""),
        ([("a.weight", "F8_E4M3", (4, 4))], ""),
        ([("a.weight", "F8_E4M3", (4, 4)), ("a.scale_weight", "F32", (1,))], "a.weight"),
        ([("a.weight", "F8_E4M3", (4, 4)), ("b.scale_weight", "F32", (1,))], ""),
        ([("a.weight", "F8_E4M3", (4, 4)), ("a.other", "F32", (1,))], ""),
        ([("a.weight", "F16", (4, 4)), ("a.scale_weight", "F32", (1,))], ""),
        ([("a.bias", "I8", (4, 4)), ("a.scales", "F32", (1,))], ""),
    ],
)
def test_a_weight_of_few_bits_with_scales_beside_it_is_quantized(
    tensors: list[tuple[str, str, tuple[int, ...]]], found: str
) -> None:
    entries = [TensorEntry(name=name, dtype=dtype, shape=shape, begin=0, end=0) for name, dtype, shape in tensors]
    assert quantized_tensor(entries) == found
