"""On a CPU all layers read pictures in the order of channels, which the kernels there compute fastest."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from domains.inference.generation import ResolvedGeneration
from domains.inference.given import Given, GivenControl
from domains.inference.on_device.families.table import family_of
from domains.inference.on_device.networks.order import in_order_of
from domains.inference.outcome import RunFinished
from tests.domains.inference.on_device.control_files import control, given, stripes, write_controlnet
from tests.domains.inference.on_device.recorder import Recorder
from tests.domains.inference.on_device.requests import embedded_model, request
from tests.domains.inference.on_device.t2i_files import write_adapted, write_t2i

ORDERS = {torch.contiguous_format: torch.channels_last, torch.channels_last: torch.contiguous_format}
"""An order of memory, and the other one."""


class _Seen(TorchDispatchMode):
    """Counts the pictures that group norms and convolutions read, by whether they are in the order of channels."""

    def __init__(self) -> None:
        super().__init__()
        self.counts = {True: 0, False: 0}

    def __torch_dispatch__(
        self, function: Any, types: Sequence[Any], args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        if any(name in str(function) for name in ("group_norm", "conv")) and args[0].dim() == 4:
            self.counts[args[0].is_contiguous()] += 1
        return function(*args, **kwargs or {})


def seen_by_layers(
    recorder: Recorder, asked: ResolvedGeneration, controls: Sequence[GivenControl] = ()
) -> dict[bool, int]:
    recorder.loop.submit("a", Given(recorder.loaded.model, asked, controls=tuple(controls)))
    with _Seen() as seen:
        recorder.run()
    assert isinstance(recorder.last("a"), RunFinished)
    return seen.counts


def test_no_layer_of_a_guided_picture_reads_channels_last() -> None:
    recorder = Recorder(embedded_model())
    asked = request(embedded_model(), prompt="an owl", steps=1, guidance_scale=5.0)
    counts = seen_by_layers(recorder, asked)
    assert counts[True] > 50
    assert counts[False] == 0


@pytest.mark.parametrize("kind", ["controlnet", "t2i_adapter"])
def test_nor_does_one_where_a_map_guides(kind: str, tmp_path: Path) -> None:
    model = write_adapted("sd2", tmp_path / "model")
    recorder = Recorder(model, precision="float32")
    if kind == "controlnet":
        scale_px = 64 // family_of(recorder.loaded).latent_shape(64, 64)[1]
        net = write_controlnet(tmp_path / "net", recorder.loaded, scale_px)
    else:
        net = write_t2i(tmp_path / "net", 1, channels=(16, 32), downscale_factor=4)
    controls = [given(net, stripes(64, 64), tmp_path)]
    asked = request(model, controls=(control(net),), width_px=64, height_px=64, steps=1, guidance_scale=5.0)
    counts = seen_by_layers(recorder, asked, controls)
    assert counts[True] > 20
    assert counts[False] == 0


def test_nor_does_one_of_a_picture_that_is_encoded() -> None:
    family = family_of(Recorder(embedded_model()).loaded)
    with torch.inference_mode(), _Seen() as seen:
        family.encode_picture(stripes(64, 64))
    assert seen.counts[True] > 10
    assert seen.counts[False] == 0


@pytest.mark.parametrize("order", ORDERS)
def test_what_has_the_order_already_is_not_copied(order: torch.memory_format) -> None:
    like = torch.zeros(2, 3, 4, 5).to(memory_format=order)
    made: Tensor = torch.arange(120.0).view(2, 3, 4, 5).contiguous(memory_format=order)
    assert in_order_of(like, made) is made
    other = in_order_of(like.contiguous(memory_format=ORDERS[order]), made)
    assert torch.equal(other, made)
    assert other.stride() != made.stride()
