"""An IP-Adapter: makes tokens of pictures, and keys and values of them for each layer that reads the text."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from domains.errors import ErrorReason, FailedPrecondition
from domains.inference.on_device.cross_reads import KeysValues
from domains.inference.on_device.image_prompts.projections import Projection
from domains.inference.on_device.networks.transformer import heads_of
from domains.inference.on_device.networks.unet import UNet
from domains.model.on_device import weight_shape
from domains.model.safetensors_header import TensorEntry

_PROJECTION, _LAYERS = "image_proj.", "ip_adapter."


class AdapterNet(nn.Module):
    """The network of a published file, with its names: `image_proj.*`, `ip_adapter.1.to_k_ip.weight` …"""

    def __init__(self, shapes: Mapping[str, tuple[int, ...]]) -> None:
        super().__init__()
        own = {name.removeprefix(_PROJECTION): shape for name, shape in shapes.items() if name.startswith(_PROJECTION)}
        self.image_proj = Projection.of(own)
        numbers = sorted({int(name.split(".")[1]) for name in shapes if name.startswith(_LAYERS)})
        self.ip_adapter = nn.ModuleDict({str(number): _Layer(shapes, f"{_LAYERS}{number}.") for number in numbers})

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


def empty_adapter(tensors: Mapping[str, TensorEntry], model_id: str) -> AdapterNet:
    """The adapter on `meta` for the tensors of its file. Raises MODEL_INCOMPATIBLE for tensors that are no IP-Adapter's."""
    shapes = {name: tuple(entry.shape) for name, entry in tensors.items()}
    try:
        with torch.device("meta"):
            return AdapterNet(shapes).eval().requires_grad_(False)
    except (KeyError, ValueError, IndexError, RuntimeError) as error:
        message = f"IP-Adapter {model_id} has tensors that make none: {error}; name another one"
        raise FailedPrecondition(message, ErrorReason.MODEL_INCOMPATIBLE, model_id=model_id) from error


def check_fits(net: AdapterNet, unet: UNet, adapter_id: str, model_id: str) -> None:
    """Raise MODEL_INCOMPATIBLE unless the adapter has a layer of the right width for each one that reads the text."""
    ours = [tuple(weight_shape(layer.to_k)) for layer in unet.stored_order]
    theirs = [tuple(layer.to_k_ip.weight.shape) for layer in map(_any, net.ip_adapter.values())]
    if ours == theirs:
        return
    if len(ours) != len(theirs):
        what = f"{len(theirs)} layers where the model has {len(ours)}"
    else:
        place = next(place for place, (one, other) in enumerate(zip(ours, theirs, strict=True)) if one != other)
        what = f"a layer {place} of {theirs[place]} where the model has {ours[place]}"
    message = f"IP-Adapter {adapter_id} does not fit model {model_id}: it has {what}; name one for its family"
    raise FailedPrecondition(message, ErrorReason.MODEL_INCOMPATIBLE, adapter_model_id=adapter_id, model_id=model_id)


def _any(module: nn.Module) -> Any:
    return module
