"""Looking for devices: a change is seen by the next look, and a backend that hangs holds up no other."""

import asyncio
from collections.abc import Mapping
from pathlib import Path

import pytest
from msgspec.structs import replace
from structlog.testing import capture_logs

from domains.device.device import Backend, Device, DeviceState
from domains.device.record import DeviceReach
from domains.errors import ErrorReason, NotSupported
from domains.inference.outcome import RunFailed
from domains.processing.devices.hot_plug import HotPlug
from domains.processing.workers.worker import Described
from domains.progress import Receipt
from tests.domains.device.hand_clock import settle
from tests.domains.processing.scripted_worker import Floor, a_device


class ScriptedInventory:
    def __init__(self, backend: Backend) -> None:
        self.backend = backend
        self.there: dict[str, Device] = {}
        self.asked = asyncio.Event()
        self.may_answer = asyncio.Event()
        self.may_answer.set()
        self.looks = 0

    async def look(self) -> Mapping[str, Device]:
        self.looks += 1
        there = dict(self.there)
        self.asked.set()
        await self.may_answer.wait()
        return there


class NoWorkers:
    def __init__(self) -> None:
        self.told: list[str] = []

    def start(self, name: str, device: Device | None) -> None:
        self.told.append(f"start {name}")

    def suspend(self, device_id: str) -> None:
        self.told.append(f"suspend {device_id}")


@pytest.fixture
async def floor(tmp_path: Path) -> Floor:
    return Floor(tmp_path)


async def test_what_appears_during_a_look_is_found_by_whoever_looks_then(floor: Floor) -> None:
    sims = ScriptedInventory(Backend.SIMULATED)
    sims.may_answer.clear()
    plug = HotPlug([sims], floor.devices, NoWorkers(), floor.board.lanes)
    first = asyncio.create_task(plug.look(60.0))
    await sims.asked.wait()
    sims.there = {"sim-0": a_device()}
    others = [asyncio.create_task(plug.look(60.0)) for _ in range(3)]
    await settle()
    sims.may_answer.set()
    assert (await first).added == ()
    assert [(await other).added for other in others] == [("sim-0",)] * 3
    assert sims.looks == 2


async def test_a_device_that_goes_and_comes_back_loses_its_worker_and_gets_another(floor: Floor) -> None:
    sims, workers = ScriptedInventory(Backend.SIMULATED), NoWorkers()
    plug = HotPlug([sims], floor.devices, workers, floor.board.lanes)
    sims.there = {"sim-0": a_device()}
    assert (await plug.look(60.0)).added == ("sim-0",)
    floor.devices.described("sim-0", a_device(), DeviceReach(), ready=True)
    sims.there = {}
    found = await plug.look(60.0)
    assert (found.lost, floor.devices.get("sim-0").state) == (("sim-0",), DeviceState.LOST)
    assert (await plug.look(60.0)).lost == ()
    sims.there = {"sim-0": a_device()}
    with capture_logs() as lines:
        found = await plug.look(60.0)
    assert [(line["event"], line["device"]) for line in lines] == [("device returned", "sim-0")]
    assert (found.returned, found.added) == (("sim-0",), ())
    assert floor.devices.get("sim-0").state is not DeviceState.LOST
    assert (await plug.look(60.0)).returned == ()
    assert workers.told == ["start sim-0", "suspend sim-0", "start sim-0"]


async def test_a_backend_that_hangs_is_told_and_holds_up_no_other(floor: Floor) -> None:
    cards, sims = ScriptedInventory(Backend.CUDA), ScriptedInventory(Backend.SIMULATED)
    cards.may_answer.clear()
    sims.there = {"sim-0": a_device()}
    plug = HotPlug([cards, sims], floor.devices, NoWorkers(), floor.board.lanes)
    for added in (("sim-0",), ("sim-0",)):
        found = await plug.look(0.3)
        assert found.added == added
        assert [(one.backend, one.failure.reason) for one in found.failures] == [
            (Backend.CUDA, ErrorReason.DRIVER_ERROR)
        ]
    # One question is on its way, however often it is asked.
    assert cards.looks == 1


async def test_a_bug_in_one_look_ends_no_others(floor: Floor) -> None:
    sims = ScriptedInventory(Backend.SIMULATED)
    again = asyncio.Event()
    looks = 0

    async def look() -> Mapping[str, Device]:
        nonlocal looks
        looks += 1
        if looks == 1:
            raise RuntimeError("a bug")
        again.set()
        return {}

    sims.look = look  # pyright: ignore[reportAttributeAccessIssue]  # a bug of ours
    plug = HotPlug([sims], floor.devices, NoWorkers(), floor.board.lanes)
    looking = asyncio.create_task(plug.keep_looking(0.01))
    await again.wait()
    looking.cancel()


async def test_looks_come_at_their_interval_and_not_before(floor: Floor) -> None:
    sims = ScriptedInventory(Backend.SIMULATED)
    plug = HotPlug([sims], floor.devices, NoWorkers(), floor.board.lanes)
    looking = asyncio.create_task(plug.keep_looking(60.0))
    await settle()
    assert sims.looks == 0
    looking.cancel()


async def test_a_backend_that_refuses_a_look_is_told_with_its_reason(floor: Floor) -> None:
    cards, sims = ScriptedInventory(Backend.CUDA), ScriptedInventory(Backend.SIMULATED)

    async def refused() -> Mapping[str, Device]:
        raise NotSupported("no driver", ErrorReason.DRIVER_ERROR)

    cards.look = refused  # pyright: ignore[reportAttributeAccessIssue]  # as a broken driver
    sims.there = {"sim-0": a_device()}
    found = await HotPlug([cards, sims], floor.devices, NoWorkers(), floor.board.lanes).look(60.0)
    assert [(one.backend, one.failure.message) for one in found.failures] == [(Backend.CUDA, "no driver")]
    assert found.added == ("sim-0",)
    assert 0.0 <= found.duration_s < 60.0


async def test_every_worker_that_is_ready_probes_its_device_again(floor: Floor) -> None:
    plug = HotPlug([ScriptedInventory(Backend.SIMULATED)], floor.devices, NoWorkers(), floor.board.lanes)
    same, other = floor.arrive("sim-0"), floor.arrive("sim-1")
    refused = floor.arrive("sim-2")
    floor.devices.described("sim-3", a_device("sim-3"), DeviceReach(), ready=True)
    same.say(Described(device=same.device))
    other.say(Described(device=replace(other.device, display_name="Another card")))
    refused.say(RunFailed(reason=str(ErrorReason.DEVICE_LOST), message="gone", facts={}, receipt=Receipt()))
    for lane in floor.board.lanes.best_first():
        lane.grant_turns()
    with capture_logs() as lines:
        looking = asyncio.create_task(plug.look(5.0, probe_again=True))
        others = asyncio.create_task(plug.look(5.0, probe_again=True))
        while not looking.done():
            await settle()
            floor.dispatcher.pump()
        assert (await looking).changed == (await others).changed == ("sim-1",)
    assert floor.devices.get("sim-1").device.display_name == "Another card"
    assert [len(worker.orders) for worker in (same, other, refused)] == [1, 1, 1], "both looks share one probe"
    told = [(line["device"], line["problem"]) for line in lines if "probed" in line["event"]]
    assert [device for device, _ in told] == ["sim-2"]
    assert "gone" in told[0][1]
    same.say(Described(device=same.device))
    other.say(Described(device=replace(other.device, display_name="Another card")))
    refused.say(Described(device=refused.device))
    again = asyncio.create_task(plug.look(5.0, probe_again=True))
    while not again.done():
        await settle()
        floor.dispatcher.pump()
    assert (await again).changed == ()
    assert len(same.orders) == 2
    assert (await plug.look(5.0)).changed == ()
    assert len(same.orders) == 2, "a plain look probes nothing"
