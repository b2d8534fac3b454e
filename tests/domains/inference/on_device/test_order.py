"""On a CPU all layers read pictures in the order of channels, which the kernels there compute fastest."""

from collections.abc import Mapping, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from domains.inference.given import Given
from domains.inference.on_device.networks.order import in_order_of
from tests.domains.inference.on_device.recorder import Recorder
from tests.domains.inference.on_device.requests import embedded_model, request

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
        if any(name in str(function) for name in ("group_norm", "convolution")) and args[0].dim() == 4:
            self.counts[args[0].is_contiguous()] += 1
        return function(*args, **kwargs or {})


def test_no_layer_of_a_guided_picture_reads_channels_last() -> None:
    recorder = Recorder(embedded_model())
    asked = request(embedded_model(), prompt="an owl", steps=1, guidance_scale=5.0)
    recorder.loop.submit("a", Given(recorder.loaded.model, asked))
    with _Seen() as seen:
        recorder.run()
    assert seen.counts[True] > 50
    assert seen.counts[False] == 0


@pytest.mark.parametrize("order", ORDERS)
def test_what_has_the_order_already_is_not_copied(order: torch.memory_format) -> None:
    like = torch.zeros(2, 3, 4, 5).to(memory_format=order)
    made: Tensor = torch.arange(120.0).view(2, 3, 4, 5).contiguous(memory_format=order)
    assert in_order_of(like, made) is made
    other = in_order_of(like.contiguous(memory_format=ORDERS[order]), made)
    assert torch.equal(other, made)
    assert other.stride() != made.stride()
