"""The networks that enlarge pictures: ESRGAN (RRDBNet, Wang et al. 2018) and Real-ESRGAN's compact one (SRVGGNetCompact).

Both read and write RGB of 0..1, and their tensors tell their whole shape. So a file needs no config.
"""

import re
from collections.abc import Generator, Mapping
from typing import Protocol, cast

import torch
import torch.nn.functional as F  # noqa: N812 (the name torch's own documentation uses)
from torch import Tensor, nn

from domains.errors import ErrorReason, FailedPrecondition
from domains.model.model import Model
from domains.model.on_device.components import built
from domains.model.on_device.network_loading import loading_network
from domains.model.on_device.on_device_model import OnDeviceModel
from domains.model.on_device.reading import Ready
from domains.model.safetensors_header import TensorEntry

COLOURS = 3
_SLOPE = 0.2
"""Of ESRGAN's leaky rectifier, and the share of each residual."""
_CONVOLUTIONS = 5
_BLOCK = re.compile(r"body\.(\d+)\.")
_SCALES = (2, 3, 4)


class Upscaler(Protocol):
    """A network that enlarges pictures."""

    scale: int
    """How much longer each edge becomes."""
    reach_px: int
    """How far around a pixel it looks, in pixels of its input; those further away count little or nothing."""

    def __call__(self, pictures: Tensor) -> Tensor:
        """(n, 3, h, w), 0..1 → (n, 3, h · scale, w · scale), about 0..1."""
        ...


class Compact(nn.Module):
    """Convolutions at the size of the input, then one step up, on top of the input with larger pixels."""

    def __init__(self, width: int, convolutions: int, scale: int) -> None:
        """`convolutions`: between the first and the last one."""
        super().__init__()
        inner = [
            layer
            for _ in range(convolutions)
            for layer in (nn.Conv2d(width, width, 3, padding=1), nn.PReLU(num_parameters=width))
        ]
        last = nn.Conv2d(width, COLOURS * scale**2, 3, padding=1)
        self.body = nn.ModuleList(
            [nn.Conv2d(COLOURS, width, 3, padding=1), nn.PReLU(num_parameters=width), *inner, last]
        )
        self.scale = scale
        self.reach_px = convolutions + 2

    def forward(self, pictures: Tensor) -> Tensor:
        """See `Upscaler`."""
        found = pictures
        for layer in self.body:
            found = layer(found)
        return F.pixel_shuffle(found, self.scale) + F.interpolate(pictures, scale_factor=float(self.scale))


class _Dense(nn.Module):
    """Five convolutions, each of which reads what all before it have found."""

    def __init__(self, width: int, growth: int) -> None:
        super().__init__()
        for place in range(_CONVOLUTIONS):
            out = width if place == _CONVOLUTIONS - 1 else growth
            self.add_module(f"conv{place + 1}", nn.Conv2d(width + place * growth, out, 3, padding=1))

    def forward(self, x: Tensor) -> Tensor:
        *first, last = self.children()
        found = x
        for layer in first:
            found = torch.cat([found, F.leaky_relu(layer(found), _SLOPE)], 1)
        return x + _SLOPE * last(found)


class _Block(nn.Module):
    """Three dense blocks."""

    def __init__(self, width: int, growth: int) -> None:
        super().__init__()
        for place in range(3):
            self.add_module(f"rdb{place + 1}", _Dense(width, growth))

    def forward(self, x: Tensor) -> Tensor:
        found = x
        for dense in self.children():
            found = dense(found)
        return x + _SLOPE * found


class Esrgan(nn.Module):
    """Dense blocks at the size of the input, or at half of it for twice the size, then two steps up."""

    def __init__(self, width: int, growth: int, blocks: int, scale: int) -> None:
        super().__init__()
        self.scale = scale
        self._folded = 4 // scale
        self.conv_first = nn.Conv2d(COLOURS * self._folded**2, width, 3, padding=1)
        self.body = nn.ModuleList([_Block(width, growth) for _ in range(blocks)])
        for name in ("conv_body", "conv_up1", "conv_up2", "conv_hr"):
            self.add_module(name, nn.Conv2d(width, width, 3, padding=1))
        self.conv_last = nn.Conv2d(width, COLOURS, 3, padding=1)
        # It could look further; what it sees there counts little.
        self.reach_px = 32

    def forward(self, pictures: Tensor) -> Tensor:
        """See `Upscaler`."""
        height, width = pictures.shape[2:]
        missing = (0, -width % self._folded, 0, -height % self._folded)
        whole = F.pad(pictures, missing, mode="reflect") if any(missing) else pictures
        found = first = self.conv_first(F.pixel_unshuffle(whole, self._folded))
        for block in self.body:
            found = block(found)
        found = first + self.get_submodule("conv_body")(found)
        for name in ("conv_up1", "conv_up2"):
            found = F.leaky_relu(self.get_submodule(name)(F.interpolate(found, scale_factor=2.0)), _SLOPE)
        found = self.conv_last(F.leaky_relu(self.get_submodule("conv_hr")(found), _SLOPE))
        return found[..., : height * self.scale, : width * self.scale]


def loading_upscaler(model: Model, base: OnDeviceModel) -> Generator[Ready, None, nn.Module]:
    """Read an upscaler onto the device of a model, in float32: pictures have 256 levels, which half precision does not keep.
    Raises as `loading_network`, and MODEL_INCOMPATIBLE for one that makes pictures no larger."""

    def build(tensors: Mapping[str, TensorEntry]) -> nn.Module:
        shapes = {name: tuple(entry.shape) for name, entry in tensors.items()}
        return built({}, model.id, lambda _: _shaped(shapes), len(tensors))

    def check(module: object) -> None:
        scale = cast(Upscaler, module).scale
        if scale not in _SCALES:
            message = (
                f"upscaler {model.id} makes each edge {scale} times as long; this server uses those of 2 to 4 times"
            )
            raise FailedPrecondition(message, ErrorReason.MODEL_INCOMPATIBLE, model_id=model.id)

    return loading_network(model, base, build, check, dtype=torch.float32)


def _shaped(shapes: Mapping[str, tuple[int, ...]]) -> nn.Module:
    """The network of tensors of these shapes. Raises KeyError or ValueError where they have no such shape."""
    blocks = {int(found[1]) for name in shapes if (found := _BLOCK.match(name))}
    count = max(blocks) + 1
    if "conv_first.weight" in shapes:
        width, inputs = shapes["conv_first.weight"][:2]
        folded = round((inputs / COLOURS) ** 0.5)
        return Esrgan(width, shapes["body.0.rdb1.conv1.weight"][0], count, 4 // folded)
    scale = round((shapes[f"body.{count - 1}.weight"][0] / COLOURS) ** 0.5)
    return Compact(shapes["body.0.weight"][0], (count - 3) // 2, scale)
