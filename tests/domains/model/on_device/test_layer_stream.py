"""Layers that pass through two places, with copies and a driver that are scripted: what waits for what."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from domains.inference.on_device.networks.announcing import announce
from domains.model.layers import Layer, layer_of, module_of
from domains.model.model import Model
from domains.model.on_device import cuda_reading, file_map
from domains.model.on_device.components import BUILDERS, build
from domains.model.on_device.flat import Slot, Slots
from domains.model.on_device.layer_stream import LayerStream
from domains.model.on_device.weights import plan
from domains.model.weight_file import WeightFile
from tests.domains.model.on_device.test_cuda_reading import HOST, UNET, HostCopies, ScriptedDriver, keeps


class Queue(HostCopies):
    """Notes what is enqueued, in its order."""

    def __init__(self) -> None:
        self.told: list[str] = []

    def begin(self) -> None:
        self.told.append("begin")

    def bring(self, source: Tensor) -> Tensor:
        self.told.append("copy")
        return super().bring(source)

    def hold_computing(self) -> None:
        self.told.append("hold")


@pytest.fixture(autouse=True)
def small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(file_map, "PIECE", 16384)
    monkeypatch.setattr(cuda_reading, "PIECE", 16384)


@pytest.fixture
def file(tiny: Model) -> Iterator[WeightFile]:
    with WeightFile(tiny, UNET) as opened:
        yield opened


def layers_of(model: Model, file: WeightFile) -> tuple[nn.Module, list[Slots]]:
    """The empty U-Net, and the first four of its layers."""
    unet = build(model, "unet", BUILDERS["sd1"]["unet"], len(file.tensors))
    found: dict[Layer, list[Slot]] = {}
    for slot in plan(unet, "unet", [file], torch.float32, torch.channels_last):
        if (layer := layer_of(slot.name)) is not None:
            found.setdefault(layer, []).append(slot)
    return unet, [Slots(found[layer]) for layer in sorted(found)][:4]


def compute(module: nn.Module, slots: Slots) -> dict[str, Tensor]:
    """A layer's weights as its computation finds them, by name."""
    announce(module.get_submodule(module_of(slots[0].name)))
    return {slot.name: module.get_parameter(slot.name).clone() for slot in slots}


@pytest.mark.parametrize("refuses_from", [None, 0], ids=["registered", "refused"])
def test_each_layer_finds_its_weights_and_nothing_waits_until_the_end(
    tiny: Model, file: WeightFile, refuses_from: int | None
) -> None:
    unet, layers = layers_of(tiny, file)
    driver, copies = ScriptedDriver(refuses_from), Queue()
    tier = keeps(0, driver)
    stream = LayerStream(unet, layers, HOST, tier, copies)
    for _ in stream.visits():
        pass
    stored = load_file(Path(tiny.folder) / UNET)
    registered = list(driver.registered)
    for _ in range(3):
        for slots in layers:
            for name, value in compute(unet, slots).items():
                assert torch.equal(value, stored[name]), name
    assert driver.registered == registered, "a step registers nothing"
    assert copies.settled == 0
    stream.close()
    assert (copies.settled, driver.registered) == (1, [])


def test_a_layer_waits_for_its_own_copies_and_the_next_ones_follow(tiny: Model, file: WeightFile) -> None:
    unet, layers = layers_of(tiny, file)
    copies = Queue()
    stream = LayerStream(unet, layers, HOST, keeps(0, ScriptedDriver()), copies)
    compute(unet, layers[0])
    for slots in (*layers[1:], *layers):
        copies.told.clear()
        compute(unet, slots)
        first, second, *others = copies.told
        assert (first, second) == ("hold", "begin"), "the layer's own copies were enqueued before"
        assert set(others) == {"copy"}
    stream.close()
