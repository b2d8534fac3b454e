"""The front's parts for devices: it lists DirectML's adapters by itself, with the keys that the caller's own list has."""

from collections.abc import AsyncIterator, Callable, Coroutine, Mapping
from pathlib import Path

import pytest

from deviceops.device.v1 import device_pb2
from domains.device.device import DeviceState
from domains.device.devices import Devices
from server.background import Background
from server.device import hardware
from server.device.hardware import Hardware
from server.device.messages import to_device
from server.device.parts import DeviceParts
from server.settings import Settings
from server.worker import launcher
from tests.domains.device.fake_dxcore import FakeDxCore, gpu, luid
from tests.domains.processing.scripted_worker import Floor

Make = Callable[[str], DeviceParts]


class Closable:
    """In place of a nursery."""

    async def close(self) -> None:
        pass


class NoTasks(Background):
    """Starts no task, so that no worker process starts."""

    def spawn(self, work: Coroutine[None, None, None]) -> None:
        work.close()


@pytest.fixture
def library(monkeypatch: pytest.MonkeyPatch) -> FakeDxCore:
    library = FakeDxCore(gpu(INSTANCE_LUID=luid(1, 0xFEDC)))
    monkeypatch.setattr(hardware, "open_dxcore", library.dxcore)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    return library


@pytest.fixture
async def make(tmp_path: Path) -> AsyncIterator[Make]:
    made: list[DeviceParts] = []

    def parts(wanted: str) -> DeviceParts:
        floor = Floor(tmp_path)
        settings = Settings(devices=[wanted], state=tmp_path)
        found = Hardware(settings)
        devices = Devices(floor.log, expected=list(found.names))
        one = DeviceParts(settings, found, devices, floor.loaded, floor.board, NoTasks())
        made.append(one)
        for work in one.begin():
            work.close()
        return one

    yield parts
    for one in made:
        await one.close()


async def test_a_configured_adapter_is_listed_before_its_worker_is_there(library: FakeDxCore, make: Make) -> None:
    parts = make("directml")
    device = to_device(parts.devices.get("directml:0"))
    assert (device.id, device.display_name) == ("directml-0", "AMD Radeon RX 7800 XT")
    assert (device.backend, device.state) == (device_pb2.DEVICE_BACKEND_DIRECTML, device_pb2.DEVICE_STATE_STARTING)
    assert device.identity.adapter_luid == (1 << 32) | 0xFEDC
    assert (device.identity.pci_vendor_id, device.identity.pci_device_id) == (0x1002, 0x747E)
    assert [keeper.name for keeper in parts.fleet.keepers] == ["directml:0"]
    left, library.adapters = library.adapters, []
    assert (await parts.refresh(10.0, probe_again=False)).lost == ("directml-0",)
    library.adapters = left
    assert (await parts.refresh(10.0, probe_again=False)).returned == ("directml-0",)


async def test_where_nothing_else_is_found_the_adapters_are_listed_and_left_alone(
    library: FakeDxCore, make: Make
) -> None:
    parts = make("auto")
    assert [(view.device.id, view.state) for view in parts.devices.list()] == [
        ("directml-0", DeviceState.DISABLED),
        ("cpu", DeviceState.STARTING),
    ]
    assert [keeper.name for keeper in parts.fleet.keepers] == ["cpu"]
    assert not any(library.held.values())


@pytest.mark.parametrize(("wanted", "spins"), [("sim:2", "3000"), ("cpu", None)])
async def test_threads_of_workers_spin_briefly_where_several_compute_on_the_same_cores(
    wanted: str, spins: str | None, make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    given: list[Mapping[str, str]] = []

    def keeper(environment: Mapping[str, str], **_: object) -> Closable:
        given.append(environment)
        return Closable()

    monkeypatch.setattr(launcher, "NurseryKeeper", keeper)
    monkeypatch.setattr(launcher, "can_adopt", lambda: True)
    monkeypatch.delenv("GOMP_SPINCOUNT", raising=False)
    make(wanted)
    assert [one.get("GOMP_SPINCOUNT") for one in given] == [spins]
