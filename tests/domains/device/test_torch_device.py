"""What torch calls a device of ours, and an adapter of DirectML that is not there or does not answer."""

import sys
from types import ModuleType

import pytest

from domains.device.on_device.torch_device import directml_adapters, torch_name
from domains.errors import ErrorReason, NotFound


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
