"""Models for the engine's tests, each loaded once."""

import gc
from collections.abc import Iterator

import pytest
import torch

from domains.model.model import Model
from domains.model.on_device import OnDeviceModel, load
from tests.domains.inference.on_device.requests import embedded_model
from tests.domains.inference.on_device.tiny_model import write_tiny_model


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> Iterator[None]:
    """Test processes share the cores."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module", autouse=True)
def lasting_objects_left_alone() -> None:
    """What earlier files imported and loaded is not searched for cycles again: after each unload that takes a second."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Model:
    """A model of random weights on disk."""
    return write_tiny_model(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture(scope="session")
def embedded() -> OnDeviceModel:
    """The package's own model on the CPU."""
    return load(embedded_model(), "cpu")


@pytest.fixture
def aligned(monkeypatch: pytest.MonkeyPatch) -> None:
    """Copy all weights: a library's sums differ in their last bit where a mapped file aligns a tensor otherwise."""

    def nothing(file: object) -> None: ...

    monkeypatch.setattr("domains.model.on_device.weights.mapped", nothing)
