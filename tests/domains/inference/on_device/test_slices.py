"""Long operations in slices: the same numbers, and a look between any two slices."""

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F  # noqa: N812 (the name torch's own documentation uses)
from diffusers.models.downsampling import Downsample2D
from diffusers.models.upsampling import Upsample2D
from torch import Tensor, nn

from domains.inference.on_device.families.family import KeepOn, regardless
from domains.inference.on_device.networks import slices
from domains.model.on_device import picture_layout

FLOP = 2**27
"""A piece that takes no time, and is long enough for the kernels that long operations take."""
LAYOUT = picture_layout(torch.device("cpu"))
"""Only there operations are sliced."""


@pytest.fixture(autouse=True)
def short_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(slices, "SLICED_FROM_FLOP", 2 * FLOP)
    monkeypatch.setattr(slices, "PIECE_FLOP", FLOP)
    torch.manual_seed(0)


def picture(rows: int, channels: int, height: int, width: int) -> Tensor:
    return torch.randn(rows, channels, height, width).to(memory_format=LAYOUT)


def layer(*shape: int, **more: Any) -> nn.Conv2d:
    made = nn.Conv2d(shape[0], shape[1], shape[2], **more).to(memory_format=LAYOUT)
    return made.requires_grad_(False)


def resize(module: Any) -> Any:
    return module.to(memory_format=LAYOUT).requires_grad_(False)


def attended(keep_on: KeepOn) -> Tensor:
    query, key, value = (torch.randn(2, 3000, 4, 16).transpose(1, 2) for _ in range(3))
    return slices.attention(query, key, value, keep_on)


def convolved(keep_on: KeepOn, *, rows: int, kernel: int, stride: int, padding: int) -> Tensor:
    made = layer(64, 64, kernel, stride=stride, padding=padding)
    return slices.conv(made, picture(rows, 64, 131, 130 if kernel == 3 and stride == 1 else 520), keep_on)


def larger(keep_on: KeepOn, size: tuple[int, int] | None) -> Tensor:
    return slices.upsampled(resize(Upsample2D(64, use_conv=True)), picture(1, 64, 64, 66), keep_on, size)


def smaller(keep_on: KeepOn) -> Tensor:
    module = resize(Downsample2D(64, use_conv=True, padding=1, name="op"))
    return slices.downsampled(module, picture(2, 64, 191, 190), keep_on)


CASES: dict[str, Callable[[KeepOn], Tensor]] = {
    "attention": attended,
    "conv": lambda keep_on: convolved(keep_on, rows=1, kernel=3, stride=1, padding=1),
    "conv of two rows": lambda keep_on: convolved(keep_on, rows=2, kernel=3, stride=1, padding=1),
    "conv with a stride": lambda keep_on: convolved(keep_on, rows=2, kernel=3, stride=2, padding=1),
    "conv of 1 x 1": lambda keep_on: convolved(keep_on, rows=3, kernel=1, stride=1, padding=0),
    "conv without padding": lambda keep_on: convolved(keep_on, rows=1, kernel=3, stride=1, padding=0),
    "upsampled": lambda keep_on: larger(keep_on, None),
    "upsampled to an odd size": lambda keep_on: larger(keep_on, (127, 131)),
    "downsampled": smaller,
}


@pytest.mark.parametrize("name", CASES)
def test_a_sliced_operation_has_the_bits_of_the_whole(name: str) -> None:
    looks: list[None] = []
    state = torch.get_rng_state()
    whole = CASES[name](regardless)
    torch.set_rng_state(state)
    sliced = CASES[name](lambda: looks.append(None))
    assert len(looks) > 2
    assert torch.equal(whole, sliced)
    assert whole.is_contiguous(memory_format=torch.channels_last) == sliced.is_contiguous(
        memory_format=torch.channels_last
    )


def test_a_sliced_linear_layer_differs_by_rounding_only() -> None:
    x, weight, bias = torch.randn(2, 30_000, 96), torch.randn(128, 96), torch.randn(128)
    looks: list[None] = []
    sliced = slices.linear(x, weight, bias, lambda: looks.append(None))
    assert len(looks) > 2
    torch.testing.assert_close(sliced, F.linear(x, weight, bias))


def test_no_slice_is_longer_than_a_piece() -> None:
    looks: list[None] = []
    x, weight = torch.randn(1, 200_000, 64), torch.randn(64, 64)
    slices.linear(x, weight, None, lambda: looks.append(None))
    assert len(looks) >= math.ceil(2 * x.numel() * 64 / FLOP)


def test_what_is_short_is_computed_as_a_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(slices, "SLICED_FROM_FLOP", 2**60)
    for case in CASES.values():
        looks: list[None] = []
        case(lambda looks=looks: looks.append(None))
        assert len(looks) <= 1
