"""What the headers of a model's files tell forecasts: few numbers, which are kept while the headers are not."""

from collections.abc import Mapping

import msgspec

from domains.model.component_headers import tensors_of
from domains.model.layer_sizes import denoiser_tensors, layer_counts
from domains.model.layers import LayerSizes, layer_sizes
from domains.model.model import Model
from domains.model.reading_sizes import Reading, reading_of
from domains.model.weight_quantization import QuantizedSizes, quantized_sizes


class HeaderFacts(msgspec.Struct, frozen=True, kw_only=True):
    """Of one component."""

    layers: LayerSizes | None
    """Numbers of weights. None: it is neither the denoiser nor a text encoder."""
    reading: Reading
    """What it keeps of a prompt."""
    quantized: QuantizedSizes | None = None
    """What of it a quantization stores in fewer bits. None: it is no denoiser."""

    def placed(self, width: int, quantization: str) -> LayerSizes | None:
        """Bytes of its layers on the device, for weights of `width` bytes each. None: see `layers`. `quantization` empty:
        none."""
        if self.layers is None:
            return None
        if quantization and self.quantized is not None:
            return self.quantized.placed(self.layers, width, quantization)
        return self.layers.times(width)


def header_facts(model: Model) -> Mapping[str, HeaderFacts] | None:
    """The facts by component. None: a file cannot be read."""
    tensors = tensors_of(model)
    if tensors is None:
        return None
    found: dict[str, HeaderFacts] = {}
    for component, entries in tensors.items():
        counts = layer_counts(model.family, component, entries)
        layers = layer_sizes(counts, component) if counts else None
        own = denoiser_tensors(model.family, component, entries)
        found[component] = HeaderFacts(
            layers=layers, reading=reading_of(entries), quantized=quantized_sizes(own) if own else None
        )
    return found
