"""What the quantization of a denoiser saves, and what then lies on the device layer by layer."""

import pytest

from domains.model.layers import LayerSizes
from domains.model.safetensors_header import TensorEntry
from domains.model.weight_quantization import FP8_E4M3, INT8, is_quantized, quantized_sizes

SHAPES = {
    "transformer_blocks.0.attn.to_q.weight": (8, 4),
    "transformer_blocks.0.attn.to_q.bias": (8,),
    "transformer_blocks.1.ff.weight": (2, 6),
    "transformer_blocks.1.norm.weight": (6,),
    "proj_in.weight": (9, 3),
}
"""The first and the last block of a transformer, and a layer outside."""
TENSORS = [TensorEntry(name=name, dtype="F16", shape=shape, begin=0, end=0) for name, shape in SHAPES.items()]
FIRST, SECOND = (5, 0), (5, 1)


@pytest.mark.parametrize(
    ("name", "shape", "coded"),
    [
        ("transformer_blocks.0.attn.to_q.weight", (8, 4), True),
        ("transformer_blocks.0.conv.weight", (8, 4, 3, 3), True),
        ("transformer_blocks.0.norm.weight", (8,), False),
        ("transformer_blocks.0.attn.to_q.bias", (8, 4), False),
        ("proj_in.weight", (8, 4), False),
    ],
)
def test_matrices_within_the_repeated_layers_become_codes(name: str, shape: tuple[int, ...], coded: bool) -> None:
    assert is_quantized(name, shape) is coded


def test_codes_and_output_channels_are_counted_by_layer() -> None:
    found = quantized_sizes(TENSORS)
    assert found.codes == LayerSizes(of_layer={FIRST: 32, SECOND: 12}, rest=0)
    assert found.channels == LayerSizes(of_layer={FIRST: 8, SECOND: 2}, rest=0)
    assert found.total_codes == 44


@pytest.mark.parametrize(
    ("width", "quantization", "saved"), [(2, FP8_E4M3, 44), (4, FP8_E4M3, 132), (2, INT8, 44 - 40), (4, INT8, 132 - 40)]
)
def test_a_weight_of_one_byte_saves_the_others_and_scales_take_some_of_them(
    width: int, quantization: str, saved: int
) -> None:
    assert quantized_sizes(TENSORS).saved_bytes(width, quantization) == saved


@pytest.mark.parametrize(("quantization", "scale"), [(FP8_E4M3, 0), (INT8, 4)])
def test_each_layer_takes_its_codes_its_scales_and_what_stays_as_it_is(quantization: str, scale: int) -> None:
    counts = LayerSizes(of_layer={FIRST: 40, SECOND: 18, (9, 9): 7}, rest=27)
    found = quantized_sizes(TENSORS).placed(counts, 2, quantization)
    assert found.of_layer == {FIRST: 32 + 2 * 8 + 8 * scale, SECOND: 12 + 2 * 6 + 2 * scale, (9, 9): 14}
    assert found.rest == 54


def test_codes_outside_of_layers_count_with_the_rest() -> None:
    sizes = quantized_sizes(TENSORS)
    one = type(sizes)(codes=LayerSizes(of_layer={}, rest=10), channels=LayerSizes(of_layer={}, rest=5))
    assert one.placed(LayerSizes(of_layer={}, rest=12), 4, INT8).rest == 10 + 4 * 2 + 5 * 4
    assert one.total_codes == 10
