"""The way to a CUDA device, with a driver that is scripted: what is registered, refused, and given back."""

import os
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, nullcontext
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from domains.errors import DataLoss, ErrorReason
from domains.model.model import Model
from domains.model.on_device import cuda_reading, file_map
from domains.model.on_device.cuda_reading import read_to_cuda
from domains.model.on_device.flat import Flat, Slot, Slots
from domains.model.on_device.host_tier import HostTier
from domains.model.on_device.reading import NOW, Read, Ready
from domains.model.on_device.weights import DTYPES
from domains.model.weight_file import WeightFile
from tests.domains.inference.on_device.tiny_model import tiny_model

UNET = "unet/diffusion_pytorch_model.safetensors"
VAE = "vae/diffusion_pytorch_model.safetensors"
HOST = torch.device("cpu")


class ScriptedDriver:
    """Registers in a list, or refuses from a piece on."""

    def __init__(self, refuses_from: int | None = None) -> None:
        self.registered: list[int] = []
        self.calls = 0
        self._refuses_from = refuses_from

    def register(self, address: int, size: int) -> bool:
        assert address % 4096 == size % 4096 == 0
        self.calls += 1
        if self._refuses_from is not None and self.calls > self._refuses_from:
            return False
        self.registered.append(address)
        return True

    def unregister(self, address: int) -> None:
        self.registered.remove(address)


class HostCopies:
    """Copies at once."""

    settled = 0

    def begin(self) -> None:
        pass

    def begin_thread(self) -> None:
        pass

    def bring(self, source: Tensor) -> Tensor:
        return source.clone()

    def copying(self) -> AbstractContextManager[object]:
        return nullcontext()

    def fence(self) -> Ready:
        return NOW

    def hold_computing(self) -> None:
        pass

    def settle(self) -> None:
        self.settled += 1


@pytest.fixture(autouse=True)
def small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pieces of four pages, so that tensors lie across them."""
    monkeypatch.setattr(file_map, "PIECE", 16384)
    monkeypatch.setattr(cuda_reading, "PIECE", 16384)


@pytest.fixture
def unet(tiny: Model) -> Iterator[WeightFile]:
    with WeightFile(tiny, UNET) as file:
        yield file


def slots_of(file: WeightFile, dtype: torch.dtype | None = None) -> Slots:
    slots: list[Slot] = []
    for name, entry in sorted(file.tensors.items(), reverse=True):
        stored = DTYPES[entry.dtype]
        slots.append(Slot(name, file, entry, stored, dtype or stored, torch.Size(entry.shape)))
    return Slots(slots)


def keeps(budget_bytes: int, driver: ScriptedDriver) -> HostTier:
    """A host tier of this size; 0: it keeps nothing."""
    return HostTier(lambda: budget_bytes, driver)


def read(slots: Slots, driver: ScriptedDriver, tier: HostTier | None = None) -> tuple[dict[str, Tensor], int]:
    """The tensors, and the bytes that were told."""
    flat, told = Flat(slots, HOST), 0
    with ExitStack() as ending:
        for piece in read_to_cuda(slots, flat, HostCopies(), tier or keeps(0, driver), ending, iter(())):
            piece.ready.wait()
            told += piece.size
    return dict(flat.tensors(slots)), told


def to_the_end(steps: Iterator[Read]) -> None:
    for step in steps:
        step.ready.wait()


@pytest.mark.parametrize("refuses_from", [None, 0, 3], ids=["registered", "refused", "refused midway"])
@pytest.mark.parametrize("dtype", [None, torch.bfloat16], ids=str)
def test_every_tensor_arrives_whole_and_nothing_stays_registered(
    tiny: Model, unet: WeightFile, refuses_from: int | None, dtype: torch.dtype | None
) -> None:
    driver = ScriptedDriver(refuses_from)
    got, told = read(slots_of(unet, dtype), driver)
    stored = load_file(Path(tiny.folder) / UNET)
    assert got.keys() == stored.keys()
    for name, value in stored.items():
        assert torch.equal(got[name], value.to(dtype or value.dtype)), name
        assert got[name].ndim != 4 or got[name].is_contiguous(memory_format=torch.channels_last)
    assert told == sum(value.nbytes for value in stored.values())
    assert driver.calls > 3 or refuses_from == 0
    assert driver.registered == []


@pytest.mark.parametrize("dtype", ["float64", "float16", "float8_e4m3fn", "float8_e5m2"])
def test_other_floats_are_converted_as_their_float32_twins(tiny: Model, dtype: str) -> None:
    path = Path(tiny.folder) / UNET
    save_file({name: value.to(getattr(torch, dtype)) for name, value in load_file(path).items()}, path)
    stored = load_file(path)
    with WeightFile(tiny_model(Path(tiny.folder)), UNET) as file:
        got, _ = read(slots_of(file, torch.bfloat16), ScriptedDriver())
    assert all(torch.equal(got[name], stored[name].float().to(torch.bfloat16)) for name in stored)


def test_a_cancelled_load_waits_for_its_copies_and_gives_every_piece_back(unet: WeightFile) -> None:
    driver, copies, slots = ScriptedDriver(), HostCopies(), slots_of(unet)
    with ExitStack() as ending:
        steps = read_to_cuda(slots, Flat(slots, HOST), copies, keeps(0, driver), ending, iter(()))
        for _ in range(3):
            next(steps).ready.wait()
        assert driver.registered
        steps.close()  # pyright: ignore[reportAttributeAccessIssue]  # a generator
    assert (driver.registered, copies.settled) == ([], 1)


def test_the_tensors_are_made_while_pieces_come_and_completely_at_the_end(unet: WeightFile) -> None:
    driver, slots, made = ScriptedDriver(), slots_of(unet), list[int]()

    def views() -> Iterator[None]:
        for number in range(100):
            made.append(number)
            yield

    with ExitStack() as ending:
        steps = read_to_cuda(slots, Flat(slots, HOST), HostCopies(), keeps(0, driver), ending, views())
        to_the_end(steps)
        assert made == [*range(100)]
        assert driver.registered, "the copies may still read the map"
    assert not driver.registered


def test_a_file_that_shrinks_while_it_is_mapped_is_a_typed_error(tiny: Model, unet: WeightFile) -> None:
    """A driver refuses pages that the file no longer has; then `preadv` tells why."""
    slots = slots_of(unet)
    steps = read_to_cuda(
        slots, Flat(slots, HOST), HostCopies(), keeps(0, ScriptedDriver(refuses_from=0)), ExitStack(), iter(())
    )
    next(steps).ready.wait()
    os.truncate(Path(tiny.folder) / UNET, 8 * 16384)
    with pytest.raises(DataLoss, match="cut off") as told:
        to_the_end(steps)
    assert told.value.reason is ErrorReason.MODEL_CORRUPT


def test_a_disk_that_returns_errors_is_a_typed_error(unet: WeightFile, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: object) -> int:
        raise OSError(5, "Input/output error")

    slots = slots_of(unet)
    steps = read_to_cuda(
        slots, Flat(slots, HOST), HostCopies(), keeps(0, ScriptedDriver(refuses_from=0)), ExitStack(), iter(())
    )
    monkeypatch.setattr("os.preadv", fails)
    with pytest.raises(DataLoss, match="Input/output error") as told:
        to_the_end(steps)
    assert told.value.reason is ErrorReason.MODEL_CORRUPT


def test_a_map_that_is_kept_is_not_registered_again(tiny: Model, unet: WeightFile) -> None:
    driver, slots = ScriptedDriver(), slots_of(unet)
    tier = keeps(2**30, driver)
    first, _ = read(slots, driver, tier)
    calls = driver.calls
    # The header is not read by the device.
    assert 0.9 * unet.size_bytes < tier.pinned_bytes <= unet.size_bytes
    with WeightFile(tiny, UNET) as again:
        second, _ = read(slots_of(again), driver, tier)
    assert driver.calls == calls
    assert all(torch.equal(first[name], second[name]) for name in first)
    tier.clear()
    assert (driver.registered, tier.pinned_bytes) == ([], 0)


def test_the_map_used_longest_ago_goes_when_the_budget_is_full(tiny: Model, unet: WeightFile) -> None:
    driver = ScriptedDriver()
    tier = keeps(unet.size_bytes + 1, driver)
    with WeightFile(tiny, VAE) as vae:
        read(slots_of(vae), driver, tier)
        read(slots_of(unet), driver, tier)
        assert 0.9 * unet.size_bytes < tier.pinned_bytes <= unet.size_bytes
        calls = driver.calls
        read(slots_of(unet), driver, tier)
        assert driver.calls == calls
        read(slots_of(vae), driver, tier)
        assert driver.calls > calls
    tier.clear()


def test_a_changed_file_has_another_map(tiny: Model, unet: WeightFile) -> None:
    driver = ScriptedDriver()
    tier = keeps(2**30, driver)
    read(slots_of(unet), driver, tier)
    path, calls = Path(tiny.folder) / UNET, driver.calls
    save_file({name: value + 1 for name, value in load_file(path).items()}, path)
    with WeightFile(tiny_model(Path(tiny.folder)), UNET) as changed:
        got, _ = read(slots_of(changed), driver, tier)
    assert driver.calls > calls
    assert all(torch.equal(got[name], value) for name, value in load_file(path).items())
    tier.clear()
