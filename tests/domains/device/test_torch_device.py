"""What torch calls a device of ours, and an adapter of DirectML that is not there or does not answer."""

import sys
from types import ModuleType

import pytest
import torch

from domains.device.on_device.torch_device import directml_adapters, torch_name
from domains.errors import ErrorReason, NotFound, NotSupported


class FakeDirectML(ModuleType):
    """torch_directml as far as it is used here: None is an adapter on which no Direct3D device can be made."""

    def __init__(self, *names: str | None) -> None:
        super().__init__("torch_directml")
        self.names = names

    def device_count(self) -> int:
        return len(self.names)

    def device_name(self, index: int) -> str:
        if (name := self.names[index]) is None:
            raise RuntimeError("Unknown error -2005270524")
        return f"{name}\0"


def test_an_adapter_that_fails_costs_the_others_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch_directml", FakeDirectML("Radeon", None))
    assert torch_name("directml:0") == "privateuseone:0"
    assert directml_adapters() == ("Radeon", "")
    with pytest.raises(NotFound) as caught:
        torch_name("directml:2")
    assert caught.value.reason is ErrorReason.DEVICE_NOT_FOUND
    assert caught.value.facts["known"] == "directml:0 Radeon, directml:1"


def test_a_rocm_device_is_torchs_cuda_where_torch_is_built_with_rocm(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.version, "hip", "6.4.43482")
    monkeypatch.setattr(torch.version, "cuda", None)
    assert (torch_name("rocm:1"), torch_name("cuda:0")) == ("cuda:1", "cuda:0")


def test_a_torch_without_rocm_says_which_build_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.version, "hip", None)
    with pytest.raises(NotSupported, match="built without ROCm") as caught:
        torch_name("rocm:0")
    assert caught.value.reason is ErrorReason.FEATURE_NOT_INSTALLED
