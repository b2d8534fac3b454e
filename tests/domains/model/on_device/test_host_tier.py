"""A model that comes back from the host tier: nothing is built again, and its weights are those of its files."""

import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from domains.errors import FailedPrecondition
from domains.model.model import Model
from domains.model.on_device import HostTier, OnDeviceModel, SharedModules, loading, skeleton_key
from domains.model.on_device.load import Loading
from tests.domains.inference.on_device.tiny_model import tiny_model
from tests.domains.model.folders import age
from tests.open_files import open_within

UNET = "unet/diffusion_pytorch_model.safetensors"


@pytest.fixture
def tier() -> Iterator[HostTier]:
    one = HostTier(lambda: 0)
    yield one
    one.clear()


@pytest.fixture
def aged(tiny: Model) -> Model:
    age(Path(tiny.folder))
    return tiny_model(Path(tiny.folder))


def end_of(steps: Loading) -> OnDeviceModel:
    while True:
        try:
            next(steps)
        except StopIteration as end:
            return end.value


def left(tier: HostTier, loaded: OnDeviceModel) -> None:
    """The model leaves the device."""
    assert loaded.skeleton is not None
    tier.keep(skeleton_key(loaded.model, loaded.execution), loaded.skeleton, ())


def test_a_model_that_comes_back_is_not_built_again(
    aged: Model, tier: HostTier, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = end_of(loading(aged, "cpu", tier=tier))
    values = {name: value.clone() for name, value in first.modules["unet"].state_dict().items()}
    left(tier, first)
    assert all(value.is_meta for value in first.modules["unet"].parameters())

    def never(*_: object) -> None:
        raise AssertionError("read or built again")

    for name in ("build", "tokenizer", "WeightFile"):
        monkeypatch.setattr(sys.modules[loading.__module__], name, never)
    again = end_of(loading(aged, "cpu", tier=tier))
    placed = again.modules["unet"].state_dict()
    assert again.modules["unet"] is first.modules["unet"]
    assert all(torch.equal(placed[name], value) for name, value in values.items())
    assert not any(value.is_meta for module in again.modules.values() for value in module.state_dict().values())
    left(tier, again)


def test_a_file_that_changed_meanwhile_is_opened_again_and_refused(aged: Model, tier: HostTier) -> None:
    left(tier, end_of(loading(aged, "cpu", tier=tier)))
    path = Path(aged.folder) / UNET
    save_file({name: value + 1 for name, value in load_file(path).items()}, path)
    with pytest.raises(FailedPrecondition, match="scan again"):
        end_of(loading(aged, "cpu", tier=tier))


def test_a_cancelled_return_keeps_no_files_open(aged: Model, tier: HostTier) -> None:
    left(tier, end_of(loading(aged, "cpu", tier=tier)))
    steps = loading(aged, "cpu", tier=tier)
    next(steps)
    steps.close()
    assert not open_within(aged.folder)
    assert end_of(loading(aged, "cpu")).size_bytes > 0


def test_a_tier_that_is_cleared_closes_its_files(aged: Model, tier: HostTier) -> None:
    left(tier, end_of(loading(aged, "cpu", tier=tier)))
    assert open_within(aged.folder)
    tier.clear()
    assert not open_within(aged.folder)


def test_a_skeleton_that_lacks_what_another_model_had_is_closed(aged: Model, tier: HostTier, tmp_path: Path) -> None:
    shutil.copytree(aged.folder, tmp_path / "twin")
    unet = tmp_path / "twin" / UNET
    save_file({name: value + 1 for name, value in load_file(unet).items()}, unet)
    age(tmp_path / "twin")
    shared, twin = SharedModules(), tiny_model(tmp_path / "twin")
    first = end_of(loading(aged, "cpu", shared=shared, tier=tier))
    second = end_of(loading(twin, "cpu", shared=shared, tier=tier))
    assert second.skeleton is not None
    assert second.skeleton.modules.keys() == {"unet"}, "the rest is that of the first"
    kept = second.skeleton
    left(tier, second)
    del first, second, shared
    again = end_of(loading(twin, "cpu", tier=tier))
    assert again.skeleton is not kept
    left(tier, again)
    tier.clear()
    assert not open_within(tmp_path / "twin")
    assert kept.files
