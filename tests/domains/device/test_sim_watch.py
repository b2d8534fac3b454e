"""What a watch of a script's file tells."""

import asyncio
import os
from pathlib import Path

import pytest

from domains.device.device import Backend, DeviceKind
from domains.device.simulated.script import default_script
from domains.device.simulated.script_file import read_script
from domains.device.simulated.watch import Difference, ScriptWatch


class Written:
    """A script's file, and what its watch has told."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.told: list[Difference] = []
        self.write(sim_0="", sim_1="")
        self.watch = ScriptWatch(read_script(path), path)
        self.watch.listeners.append(self.told.append)

    def write(self, **devices: str) -> None:
        names = {name.replace("_", "-"): keys for name, keys in devices.items()}
        self.put("".join(f'[[device]]\nid = "{name}"\n{keys}\n' for name, keys in names.items()))

    def put(self, text: str) -> None:
        """As careful editors do: beside it, then into its place."""
        beside = self.path.with_suffix(".new")
        beside.write_text(text)
        os.replace(beside, self.path)


@pytest.fixture
def written(tmp_path: Path) -> Written:
    return Written(tmp_path / "sims.toml")


async def test_nothing_new_is_nothing_told(written: Written) -> None:
    assert await written.watch.look_again() == Difference()
    assert await written.watch.look_again() == Difference()
    assert written.told == []


async def test_a_device_that_is_pulled_out_vanishes_and_returns(written: Written) -> None:
    written.write(sim_0="", sim_1="present = false")
    assert await written.watch.look_again() == Difference(vanished=("sim-1",))
    written.write(sim_0="")
    assert await written.watch.look_again() == Difference()
    written.write(sim_0="", sim_1="")
    assert await written.watch.look_again() == Difference(returned=("sim-1",))


async def test_a_new_device_appears_once_it_is_present(written: Written) -> None:
    written.write(sim_0="", sim_1="", sim_2="present = false")
    assert await written.watch.look_again() == Difference()
    written.write(sim_0="", sim_1="", sim_2="")
    assert await written.watch.look_again() == Difference(appeared=("sim-2",))


async def test_a_device_that_is_otherwise_different_is_changed(written: Written) -> None:
    written.write(sim_0="speed = 0.5", sim_1="")
    assert await written.watch.look_again() == Difference(changed=("sim-0",))
    device = written.watch.script.device("sim-0")
    assert device is not None
    assert device.speed == 0.5


@pytest.mark.parametrize("broken", ["", "[[device", '[[device]]\nid = "sim-0"\nspeed = 9'])
async def test_a_broken_edit_keeps_the_former_script_and_is_told_once(written: Written, broken: str) -> None:
    before = written.watch.script
    written.put(broken)
    told = await written.watch.look_again()
    assert told.problem is not None
    assert "sims.toml" in told.problem.message
    assert written.watch.script is before
    assert await written.watch.look_again() == Difference()
    assert written.watch.problem is told.problem
    written.write(sim_0="")
    assert await written.watch.look_again() == Difference(vanished=("sim-1",))
    assert written.watch.problem is None
    assert len(written.told) == 2


async def test_a_file_that_is_gone_changes_nothing(written: Written) -> None:
    before = written.watch.script
    written.path.unlink()
    assert (await written.watch.look_again()).problem is not None
    assert await written.watch.look_again() == Difference()
    assert written.watch.script is before
    assert set(await written.watch.look()) == {"sim-0", "sim-1"}
    written.write(sim_0="", sim_1="")
    assert await written.watch.look_again() == Difference()
    assert written.watch.problem is None


async def test_the_inventory_lists_what_is_present_now(written: Written) -> None:
    written.write(sim_0="present = false", sim_1="", sim_7="")
    found = await written.watch.look()
    assert {name: (one.id, one.kind) for name, one in found.items()} == {
        "sim-1": ("sim-1", DeviceKind.SIMULATED),
        "sim-7": ("sim-7", DeviceKind.SIMULATED),
    }
    assert written.told == [Difference(appeared=("sim-7",), vanished=("sim-0",))]


async def test_it_looks_four_times_a_second(written: Written) -> None:
    pauses: list[float] = []

    async def pause(duration_s: float) -> None:
        pauses.append(duration_s)
        if len(pauses) == 2:
            written.write(sim_0="")
        if len(pauses) == 4:
            raise asyncio.CancelledError

    watch = ScriptWatch(read_script(written.path), written.path, pause)
    watch.listeners.append(written.told.append)
    with pytest.raises(asyncio.CancelledError):
        await watch.keep_looking()
    assert pauses == [0.25] * 4
    assert written.told == [Difference(vanished=("sim-1",))]


async def test_looks_at_the_same_time_tell_a_difference_once(written: Written) -> None:
    written.write(sim_0="")
    await asyncio.gather(*(written.watch.look_again() for _ in range(5)))
    assert written.told == [Difference(vanished=("sim-1",))]


async def test_without_a_file_the_script_stays() -> None:
    watch = ScriptWatch(default_script(2))
    assert await watch.look_again() == Difference()
    assert set(await watch.look()) == {"sim-0", "sim-1"}


async def test_a_bug_of_whoever_listens_ends_no_further_looks(written: Written) -> None:
    looks = 0

    async def look_again() -> Difference:
        nonlocal looks
        looks += 1
        if looks == 1:
            raise RuntimeError("a bug")
        raise asyncio.CancelledError

    written.watch.look_again = look_again  # pyright: ignore[reportAttributeAccessIssue]  # a bug of ours
    with pytest.raises(asyncio.CancelledError):
        await written.watch.keep_looking(0.0)
    assert looks == 2


def test_a_script_is_the_inventory_of_the_simulated_devices_that_are_plugged_in(written: Written) -> None:
    written.write(sim_0="", sim_1="present = false")
    watch = ScriptWatch(read_script(written.path), written.path)
    assert watch.backend is Backend.SIMULATED
    assert list(watch.look_now()) == ["sim-0"]
