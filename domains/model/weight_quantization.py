"""Quantization of the denoiser's weights: which tensors are stored in fewer bits, and what they then take.

The weights of the linear layers and convolutions within the repeated layers (see `layers`) become codes of one byte, and
are widened for each product. Norms, biases, embeddings, and the first and last layers keep the load's precision. The server
forecasts from headers with the same rule that the worker carries out.
"""

from collections.abc import Iterable, Mapping, Sequence

import msgspec

from domains.model.layers import LayerSizes, layer_of, layer_sizes
from domains.model.safetensors_header import TensorEntry

FP8_E4M3 = "fp8_e4m3"
"""Each weight rounded to 8 bits of floating point: 4 of exponent, 3 of mantissa."""
INT8 = "int8"
"""Whole numbers within −127..127, and one float32 scale for each output channel."""
QUANTIZATIONS: Mapping[str, str] = {FP8_E4M3: "FP8 (E4M3)", INT8: "INT8, a scale per output channel"}
"""By word: the name for people."""
UNQUANTIZED = "none"
"""The weights have the precision of the load."""
OTHER_QUANTIZATIONS: Mapping[str, str] = {"nf4": "NF4", "gguf": "GGUF"}
"""Those that the contract names and this engine has no code for."""

CODE_BYTES = 1
SCALE_BYTES = 4


def is_quantized(name: str, shape: Sequence[int]) -> bool:
    """Whether a tensor of a denoiser becomes codes. `name`: in the module or its file, without a prefix."""
    return len(shape) >= 2 and name.endswith(".weight") and layer_of(name) is not None


class QuantizedSizes(msgspec.Struct, frozen=True, kw_only=True):
    """What of a denoiser becomes codes."""

    codes: LayerSizes
    """Numbers of weights."""
    channels: LayerSizes
    """Numbers of output channels."""

    @property
    def total_codes(self) -> int:
        """Number of weights that become codes."""
        return _total(self.codes)

    def saved_bytes(self, width: int, quantization: str) -> int:
        """Bytes that the quantization saves, for weights of `width` bytes each."""
        scales = _total(self.channels) * SCALE_BYTES if quantization == INT8 else 0
        return self.total_codes * (width - CODE_BYTES) - scales

    def placed(self, counts: LayerSizes, width: int, quantization: str) -> LayerSizes:
        """Bytes of each layer on the device. `counts`: numbers of all weights; `width`: bytes of one that stays as it is."""
        scale = SCALE_BYTES if quantization == INT8 else 0
        return LayerSizes(
            of_layer={
                layer: size * width
                - self.codes.of_layer.get(layer, 0) * (width - CODE_BYTES)
                + self.channels.of_layer.get(layer, 0) * scale
                for layer, size in counts.of_layer.items()
            },
            rest=counts.rest * width - self.codes.rest * (width - CODE_BYTES) + self.channels.rest * scale,
        )


def quantized_sizes(tensors: Iterable[TensorEntry]) -> QuantizedSizes:
    """The sizes for the tensors of a denoiser, whose names have no prefix."""
    coded = [one for one in tensors if is_quantized(one.name, one.shape)]
    return QuantizedSizes(
        codes=layer_sizes({one.name: one.elements for one in coded}),
        channels=layer_sizes({one.name: one.shape[0] for one in coded}),
    )


def _total(sizes: LayerSizes) -> int:
    return sizes.rest + sum(sizes.of_layer.values())
