"""What the headers of a model's files tell forecasts: few numbers, which are kept while the headers are not."""

from collections.abc import Mapping

import msgspec

from domains.model.component_headers import tensors_of
from domains.model.layer_sizes import layer_counts
from domains.model.layers import LayerSizes, layer_sizes
from domains.model.model import Model
from domains.model.reading_sizes import Reading, reading_of


class HeaderFacts(msgspec.Struct, frozen=True, kw_only=True):
    """Of one component."""

    layers: LayerSizes | None
    """Numbers of weights. None: it is neither the denoiser nor a text encoder."""
    reading: Reading
    """What it keeps of a prompt."""


def header_facts(model: Model) -> Mapping[str, HeaderFacts] | None:
    """The facts by component. None: a file cannot be read."""
    tensors = tensors_of(model)
    if tensors is None:
        return None
    found: dict[str, HeaderFacts] = {}
    for component, entries in tensors.items():
        counts = layer_counts(model.family, component, entries)
        layers = layer_sizes(counts, component) if counts else None
        found[component] = HeaderFacts(layers=layers, reading=reading_of(entries))
    return found
