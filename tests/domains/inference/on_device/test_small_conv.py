"""A small picture alone is convolved by oneDNN, which torch would not take for it."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from diffusers.models.upsampling import Upsample2D
from torch import nn
from torch.profiler import ProfilerActivity, profile

from domains.inference.on_device.families.family import regardless
from domains.inference.on_device.networks import slices
from domains.inference.on_device.networks.small_conv import is_small

SLOW = "aten::_slow_conv2d_forward"
ONE_DNN = torch.backends.mkldnn.is_available()


def layer(kernel: int, **more: Any) -> nn.Conv2d:
    return nn.Conv2d(16, 24, kernel, **more).requires_grad_(False)


SMALL = {
    "3 x 3": layer(3, padding=1),
    "3 x 3 with a stride": layer(3, padding=1, stride=2),
    "1 x 1": layer(1),
    "without bias": nn.Conv2d(16, 24, 3, padding=1, bias=False).requires_grad_(False),
}


@pytest.mark.skipif(not ONE_DNN, reason="this build of torch has no oneDNN")
@pytest.mark.parametrize("name", SMALL)
def test_a_small_picture_alone_has_the_layers_own_numbers(name: str) -> None:
    x = torch.randn(1, 16, 9, 7)
    assert is_small(SMALL[name], x)
    torch.testing.assert_close(slices.conv(SMALL[name], x, regardless), SMALL[name](x), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("shape", "made"),
    [((2, 16, 9, 7), layer(3)), ((1, 16, 40, 40), layer(3)), ((1, 16, 9, 7), layer(3, groups=8))],
    ids=["two pictures", "a large one", "groups"],
)
def test_others_are_torchs_own(shape: tuple[int, ...], made: nn.Conv2d) -> None:
    assert not is_small(made, torch.randn(shape))


@pytest.mark.skipif(not ONE_DNN, reason="this build of torch has no oneDNN")
@pytest.mark.parametrize("name", SMALL)
def test_a_small_picture_alone_does_not_take_the_slow_kernel(name: str) -> None:
    x = torch.randn(1, 16, 9, 7)
    with torch.inference_mode():
        assert SLOW in called(lambda: SMALL[name](x)), "torch takes oneDNN by itself now: this is not needed any more"
        assert SLOW not in called(lambda: slices.conv(SMALL[name], x, regardless))


@pytest.mark.skipif(not ONE_DNN, reason="this build of torch has no oneDNN")
def test_nor_does_a_small_picture_that_is_enlarged() -> None:
    module: Any = Upsample2D(16, use_conv=True).requires_grad_(False)
    x = torch.randn(1, 16, 8, 8)
    with torch.inference_mode():
        assert SLOW not in called(lambda: slices.upsampled(module, x, regardless))
        torch.testing.assert_close(slices.upsampled(module, x, regardless), module(x), rtol=1e-5, atol=1e-5)


def called(run: Callable[[], object]) -> set[str]:
    """The operations that torch computes."""
    with profile(activities=[ProfilerActivity.CPU]) as seen:
        run()
    return {event.key for event in seen.key_averages()}
