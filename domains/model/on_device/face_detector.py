"""The network that finds faces: MediaPipe's full-range BlazeFace (Bazarevsky et al. 2019, BlazeFace; the graph of
`face_detection_full_range.tflite`).

Double blocks of depthwise convolutions go down to 1/32 of the input's edge, and a top-down path leads back up to a quarter
of it. Each cell there has one anchor without a size of its own. The tensors tell the whole shape, so a file needs no
config.
"""

import re
from collections.abc import Generator, Mapping, Sequence

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

INPUT_PX = 192
"""Edge of the square that the published network was trained with."""
BOX_VALUES = 16
"""Values of a box: its centre from the anchor's, its width and height, then six points of the face, all in pixels of the
input."""
_COLOURS = 3
_BLOCK = re.compile(r"stages\.(\d+)\.(\d+)\.expand\.weight")
_MERGE = re.compile(r"merges\.(\d+)\.blocks\.(\d+)\.expand\.weight")


class _Same(nn.Conv2d):
    """A convolution that pads as TensorFlow's SAME does: the odd pixel is at the right and at the bottom."""

    def __init__(self, inputs: int, outputs: int, kernel: int = 1, stride: int = 1, groups: int = 1) -> None:
        super().__init__(inputs, outputs, kernel, stride, groups=groups)
        missing = max(0, kernel - stride)
        self._pads = (missing // 2, missing - missing // 2) * 2

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002 (torch's own name)
        """(n, inputs, h, w), h and w divisible by the stride → (n, outputs, h / stride, w / stride)."""
        return super().forward(F.pad(input, self._pads) if any(self._pads) else input)


class _Double(nn.Module):
    """Two depthwise convolutions with few channels between them, beside the input."""

    def __init__(self, inputs: int, outputs: int, middle: int, stride: int = 1) -> None:
        super().__init__()
        self.depthwise1 = _Same(inputs, inputs, 3, stride, groups=inputs)
        self.reduce = _Same(inputs, middle)
        self.depthwise2 = _Same(middle, middle, 3, groups=middle)
        self.expand = _Same(middle, outputs)
        self._stride, self._more = stride, outputs - inputs

    def forward(self, x: Tensor) -> Tensor:
        """(n, inputs, h, w) → (n, outputs, h / stride, w / stride)."""
        found = self.expand(self.depthwise2(self.reduce(self.depthwise1(x)).relu()))
        beside = F.max_pool2d(x, self._stride) if self._stride > 1 else x
        return (F.pad(beside, (0, 0, 0, 0, 0, self._more)) + found).relu()


class _Merge(nn.Module):
    """A step of the top-down path."""

    def __init__(self, above: int, beside: int, outputs: int, middle: int, blocks: int) -> None:
        super().__init__()
        self.top, self.skip = _Same(above, outputs), _Same(beside, outputs)
        self.blocks = nn.Sequential(*(_Double(outputs, outputs, middle) for _ in range(blocks)))

    def forward(self, above: Tensor, beside: Tensor) -> Tensor:
        """(n, above, h, w) and (n, beside, 2h, 2w) → (n, outputs, 2h, 2w)."""
        larger = F.interpolate(self.top(above).relu(), scale_factor=2.0, mode="bilinear", align_corners=False)
        return self.blocks(self.skip(beside).relu() + larger)


class FaceDetector(nn.Module):
    """Scores and boxes of faces, one for each cell of a grid."""

    def __init__(
        self,
        stem: int,
        stages: Sequence[Sequence[tuple[int, int]]],
        merges: Sequence[tuple[int, int, int]],
    ) -> None:
        """`stem`: channels of the first convolution. `stages`: (channels, middle channels) of each block. `merges`:
        (channels, middle channels, blocks) of each. Raises ValueError for more merges than they have stages to read."""
        super().__init__()
        if not 0 < len(merges) < len(stages):
            raise ValueError(f"{len(merges)} merges cannot read {len(stages)} stages")
        width, ends = stem, list[int]()
        self.stem = _Same(_COLOURS, stem, 3, stride=2)
        self.stages, self.merges = nn.ModuleList(), nn.ModuleList()
        for stage in stages:
            blocks = list[nn.Module]()
            for place, (outputs, middle) in enumerate(stage):
                # Each stage but the first begins with half the size.
                blocks.append(_Double(width, outputs, middle, 2 if ends and not place else 1))
                width = outputs
            self.stages.append(nn.Sequential(*blocks))
            ends.append(width)
        for beside, (outputs, middle, count) in zip(reversed(ends[:-1]), merges, strict=False):
            self.merges.append(_Merge(width, beside, outputs, middle, count))
            width = outputs
        self.score, self.box = _Same(width, 1), _Same(width, BOX_VALUES)
        self.stride_px: int = 2 ** (len(stages) - len(merges))
        """Edge of a cell, in pixels of the input."""

    def forward(self, pictures: Tensor) -> tuple[Tensor, Tensor]:
        """(n, 3, h, w), RGB, -1..1 → logits (n, cells) and boxes (n, cells, 16), cells line by line."""
        found, seen = self.stem(pictures).relu(), list[Tensor]()
        for stage in self.stages:
            found = stage(found)
            seen.append(found)
        for merge, beside in zip(self.merges, reversed(seen[:-1]), strict=False):
            found = merge(found, beside)
        return self.score(found).flatten(1), self.box(found).flatten(2).transpose(1, 2)


def loading_detector(model: Model, base: OnDeviceModel) -> Generator[Ready, None, nn.Module]:
    """Read a detector of faces onto the device of a model, in float32: half precision moves its boxes by a quarter of a
    pixel of the input, bfloat16 by a whole one. Raises as `loading_network`, and MODEL_INCOMPATIBLE for a grid that does not
    divide the input."""

    def build(tensors: Mapping[str, TensorEntry]) -> nn.Module:
        shapes = {name: tuple(entry.shape) for name, entry in tensors.items()}
        return built({}, model.id, lambda _: _shaped(shapes), len(tensors))

    def check(module: object) -> None:
        assert isinstance(module, FaceDetector)
        deepest = 2 ** len(module.stages)
        if INPUT_PX % deepest:
            message = f"detector {model.id} has {len(module.stages)} stages, which {INPUT_PX} pixels do not go into"
            raise FailedPrecondition(message, ErrorReason.MODEL_INCOMPATIBLE, model_id=model.id)

    return loading_network(model, base, build, check, dtype=torch.float32)


def _shaped(shapes: Mapping[str, tuple[int, ...]]) -> nn.Module:
    """The network of tensors of these shapes. Raises KeyError or ValueError where they have no such shape."""
    stages = _blocks(shapes, _BLOCK)
    merges = _blocks(shapes, _MERGE)
    return FaceDetector(
        shapes["stem.weight"][0],
        [
            [_widths(shapes, f"stages.{stage}.{block}") for block in range(blocks)]
            for stage, blocks in enumerate(stages)
        ],
        [(*_widths(shapes, f"merges.{merge}.blocks.0"), blocks) for merge, blocks in enumerate(merges)],
    )


def _blocks(shapes: Mapping[str, tuple[int, ...]], names: re.Pattern[str]) -> list[int]:
    """How many blocks each part has."""
    found = [(int(one[1]), int(one[2])) for name in shapes if (one := names.fullmatch(name))]
    return [
        sum(part == place for part, _ in found) for place in range(max((part for part, _ in found), default=-1) + 1)
    ]


def _widths(shapes: Mapping[str, tuple[int, ...]], block: str) -> tuple[int, int]:
    """(channels, middle channels) of a block."""
    return shapes[f"{block}.expand.weight"][0], shapes[f"{block}.reduce.weight"][0]
