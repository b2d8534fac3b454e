"""An IP-Adapter of a U-Net: makes tokens of pictures, and keys and values of them for each layer that reads the text."""

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor, nn

from domains.inference.on_device.cross_reads import KeysValues
from domains.inference.on_device.image_prompts.misfits import refuse_misfit
from domains.inference.on_device.image_prompts.projections import Projection
from domains.inference.on_device.networks.transformer import heads_of
from domains.inference.on_device.networks.unet import UNet
from domains.model.on_device import weight_shape

_PROJECTION, _LAYERS = "image_proj.", "ip_adapter."


class AdapterNet(nn.Module):
    """The network of a published file, with its names: `image_proj.*`, `ip_adapter.1.to_k_ip.weight` …"""

    def __init__(self, shapes: Mapping[str, tuple[int, ...]]) -> None:
        super().__init__()
        own = {name.removeprefix(_PROJECTION): shape for name, shape in shapes.items() if name.startswith(_PROJECTION)}
        self.image_proj = Projection.of(own)
        numbers = sorted({int(name.split(".")[1]) for name in shapes if name.startswith(_LAYERS)})
        self.ip_adapter = nn.ModuleDict({str(number): _Layer(shapes, f"{_LAYERS}{number}.") for number in numbers})

    @property
    def projection(self) -> Projection:
        """How it turns what an image encoder saw into tokens."""
        return self.image_proj

    def keys(self, seen: Tensor, unet: UNet) -> Sequence[KeysValues]:
        """For each of the U-Net's `cross_layers`: keys and values of what the encoder saw (rows, pictures, …). The tokens
        of a row's pictures are joined."""
        tokens = self.image_proj(seen.flatten(0, 1)).unflatten(0, seen.shape[:2]).flatten(1, 2)
        layers = dict(zip(unet.stored_order, self.ip_adapter.values(), strict=True))
        found: list[KeysValues] = []
        for attention in unet.cross_layers:
            layer: Any = layers[attention]
            states = layer.to_k_ip(tokens), layer.to_v_ip(tokens)
            key, value = (heads_of(attention, one).contiguous() for one in states)
            found.append((key, value))
        return found


class _Layer(nn.Module):
    def __init__(self, shapes: Mapping[str, tuple[int, ...]], place: str) -> None:
        super().__init__()
        width, read = shapes[f"{place}to_k_ip.weight"]
        self.to_k_ip = nn.Linear(read, width, bias=False)
        self.to_v_ip = nn.Linear(read, width, bias=False)


def check_fits(net: AdapterNet, unet: UNet, adapter_id: str, model_id: str) -> None:
    """Raise MODEL_INCOMPATIBLE unless the adapter has a layer of the right width for each one that reads the text."""
    ours = [tuple(weight_shape(layer.to_k)) for layer in unet.stored_order]
    theirs = [tuple(layer.to_k_ip.weight.shape) for layer in map(_any, net.ip_adapter.values())]
    refuse_misfit(ours, theirs, adapter_id, model_id)


def _any(module: nn.Module) -> Any:
    return module
