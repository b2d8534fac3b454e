"""The kinds of IP-Adapters by the family that they are made for: what must fit, and what layers read of pictures."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, NamedTuple, Protocol, cast

import torch
from torch import Tensor, nn

from domains.errors import ErrorReason, FailedPrecondition
from domains.inference.image_prompts import TIMED
from domains.inference.on_device.cross_reads import KeysValues, Norms
from domains.inference.on_device.image_prompts import adapter_net, flux_net, sd3_net
from domains.inference.on_device.image_prompts.adapter_net import AdapterNet
from domains.inference.on_device.image_prompts.encoder import ImageEncoder
from domains.inference.on_device.image_prompts.flux_net import FluxAdapterNet
from domains.inference.on_device.image_prompts.job_prompts import TimedKeys
from domains.inference.on_device.image_prompts.sd3_net import Sd3AdapterNet, Sd3Pictures
from domains.inference.on_device.networks.joint_reads import attentions_of
from domains.inference.on_device.networks.unet import UNet
from domains.model.on_device import OnDeviceModel
from domains.model.safetensors_header import TensorEntry

Shapes = Mapping[str, tuple[int, ...]]


class LayersRead(NamedTuple):
    """What the layers read of a job's pictures; see `JobImagePrompt`."""

    keys: Sequence[KeysValues] = ()
    norms: Sequence[Norms] = ()
    timed: TimedKeys | None = None


class AdapterKind(Protocol):
    """The IP-Adapters of one model."""

    @property
    def names(self) -> Sequence[str]:
        """Of the layers that read pictures, in the order of `LayersRead`."""
        ...

    @property
    def area_mode(self) -> Literal["area", "bicubic"]:
        """How regions are brought to the size of a layer."""
        ...

    def network(self, shapes: Shapes) -> nn.Module:
        """The network of a file with tensors of these shapes. Raises KeyError, ValueError or IndexError for others."""
        ...

    def check_fits(self, net: Any, adapter_id: str) -> None:
        """Raise MODEL_INCOMPATIBLE unless the network's layers are those that the model reads with."""
        ...

    def nothing(self, reader: ImageEncoder, seen: Tensor, edge_px: int, *, patches: bool) -> Tensor:
        """(1, [patches,] width): what the row without the prompt sees where no picture is to be led away from, as diffusers
        has it. `seen`: what was seen of pictures."""
        ...

    def read(self, net: Any, seen: Tensor) -> LayersRead:
        """What the layers read of what was seen (1 or 2 rows, pictures, [patches,] width)."""
        ...


class _OfUNet:
    area_mode: Literal["area", "bicubic"] = "bicubic"  # as diffusers brings such masks to the size of a layer

    def __init__(self, base: OnDeviceModel, unet: UNet | None) -> None:
        assert unet is not None, "the family has a U-Net"
        self._unet, self._model_id = unet, base.model.id
        self.names = unet.cross_names

    def network(self, shapes: Shapes) -> nn.Module:
        return AdapterNet(shapes)

    def check_fits(self, net: Any, adapter_id: str) -> None:
        adapter_net.check_fits(net, self._unet, adapter_id, self._model_id)

    def nothing(self, reader: ImageEncoder, seen: Tensor, edge_px: int, *, patches: bool) -> Tensor:
        return reader.of_zeros(edge_px, seen.device) if patches else torch.zeros_like(seen[:1])

    def read(self, net: Any, seen: Tensor) -> LayersRead:
        return LayersRead(keys=net.keys(seen, self._unet))


class _OfFlux:
    area_mode: Literal["area", "bicubic"] = "area"

    def __init__(self, base: OnDeviceModel, unet: UNet | None) -> None:
        self._transformer: Any = base.modules["transformer"]
        self._model_id = base.model.id
        self.names = [f"transformer_blocks.{place}." for place in range(len(self._transformer.transformer_blocks))]

    def network(self, shapes: Shapes) -> nn.Module:
        return FluxAdapterNet(shapes)

    def check_fits(self, net: Any, adapter_id: str) -> None:
        flux_net.check_fits(net, self._transformer, adapter_id, self._model_id)

    def nothing(self, reader: ImageEncoder, seen: Tensor, edge_px: int, *, patches: bool) -> Tensor:
        black = torch.zeros(edge_px, edge_px, 3, dtype=torch.uint8)
        return reader.seen([black], patches=patches, device=seen.device)

    def read(self, net: Any, seen: Tensor) -> LayersRead:
        return LayersRead(keys=net.keys(seen, self._transformer))


class _OfSd3:
    area_mode: Literal["area", "bicubic"] = "area"

    def __init__(self, base: OnDeviceModel, unet: UNet | None) -> None:
        self._transformer: Any = base.modules["transformer"]
        self._model_id = base.model.id
        self.names = [f"attention.{place}." for place in range(len(attentions_of(self._transformer)))]

    def network(self, shapes: Shapes) -> nn.Module:
        return Sd3AdapterNet(shapes)

    def check_fits(self, net: Any, adapter_id: str) -> None:
        sd3_net.check_fits(net, self._transformer, adapter_id, self._model_id)

    def nothing(self, reader: ImageEncoder, seen: Tensor, edge_px: int, *, patches: bool) -> Tensor:
        return torch.zeros_like(seen[:1])

    def read(self, net: Any, seen: Tensor) -> LayersRead:
        own = cast(Sd3AdapterNet, net)
        return LayersRead(norms=own.norms, timed=Sd3Pictures(own, seen, self._transformer))


_KINDS: Mapping[str, Callable[[OnDeviceModel, UNet | None], AdapterKind]] = {
    "sd3": _OfSd3,
    "flux1": _OfFlux,
    "chroma": _OfFlux,
}


def kind_of(base: OnDeviceModel, unet: UNet | None) -> AdapterKind:
    """The kind of IP-Adapters that a model reads pictures with. `unet`: the model's; None: it has none."""
    return _KINDS.get(base.family, _OfUNet)(base, unet)


def stays(base: OnDeviceModel) -> bool:
    """Whether the adapters of a model are read in its steps, too."""
    return base.family in TIMED


def empty_adapter(kind: AdapterKind, tensors: Mapping[str, TensorEntry], model_id: str) -> nn.Module:
    """The adapter on `meta` for the tensors of its file. Raises MODEL_INCOMPATIBLE for tensors that are no IP-Adapter's."""
    shapes = {name: tuple(entry.shape) for name, entry in tensors.items()}
    try:
        with torch.device("meta"):
            return kind.network(shapes).eval().requires_grad_(False)
    except (KeyError, ValueError, IndexError, RuntimeError) as error:
        message = f"IP-Adapter {model_id} has tensors that make none: {error}; name another one"
        raise FailedPrecondition(message, ErrorReason.MODEL_INCOMPATIBLE, model_id=model_id) from error
