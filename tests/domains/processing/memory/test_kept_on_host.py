"""Models that leave their device and wait in the RAM tier: what has no room there does not leave its device."""

import msgspec
import pytest

from domains.errors import ErrorReason, FailedPrecondition, ResourceExhausted
from domains.model.loaded import LoadedModel, LoadedState, Stay
from domains.model.model import Model
from domains.processing.memory.kept_on_host import KeptOnHost
from tests.domains.processing.memory.test_prefetch import Desk, desk

__all__ = ["desk"]


def kept_of(desk: Desk) -> KeptOnHost:
    return KeptOnHost(desk.loads, desk.loaded, desk.shelf)  # pyright: ignore[reportArgumentType]


def on_device(desk: Desk, model: Model, device_id: str = "cuda:0") -> LoadedModel:
    desk.put_on(device_id, model)
    return desk.loaded.get(f"{model.id}@{device_id}")


async def leave(kept: KeptOnHost, desk: Desk, *there: LoadedModel) -> None:
    """As an unload does it."""
    await kept.bring(there)
    for one in there:
        desk.loaded.remove(one.id)
    kept.note(there)


async def test_what_has_no_room_in_host_memory_stays_on_its_device(desk: Desk) -> None:
    kept = kept_of(desk)
    for model in (desk.one, desk.two):
        await desk.load(model, Stay(pinned=True))
    there = on_device(desk, desk.three)
    with pytest.raises(ResourceExhausted) as full:
        await kept.bring([there])
    assert full.value.reason is ErrorReason.HOST_OUT_OF_MEMORY
    assert "without `keep_on_host`" in full.value.message
    kept.note([there])
    assert desk.loaded.get(there.id).state is LoadedState.READY
    assert desk.loaded.offloaded() == []


async def test_a_model_whose_files_have_changed_is_not_kept(desk: Desk) -> None:
    there = on_device(desk, desk.one)
    desk.shelf.models["one"] = msgspec.structs.replace(desk.one, sha256="0" * 64)
    with pytest.raises(FailedPrecondition) as changed:
        await kept_of(desk).bring([there])
    assert changed.value.facts["loaded_model_id"] == there.id


async def test_two_devices_share_what_waits_and_the_last_one_takes_it_along(desk: Desk) -> None:
    kept = kept_of(desk)
    first, second = (on_device(desk, desk.one, device) for device in ("cuda:0", "cuda:1"))
    await leave(kept, desk, first, second)
    assert desk.ready() == ["one@host"]
    kept.let_go([first])
    assert [one.id for one in desk.loaded.offloaded()] == [second.id]
    assert desk.ready() == ["one@host"]
    kept.let_go([second])
    assert (desk.ready(), desk.loaded.everything()) == ([], [])


async def test_a_model_that_the_tier_evicts_waits_no_more(desk: Desk) -> None:
    kept = kept_of(desk)
    there = on_device(desk, desk.one)
    await leave(kept, desk, there)
    await desk.load(desk.two, Stay(pinned=True))
    await desk.load(desk.three)
    assert desk.ready() == ["three@host", "two@host"]
    assert desk.loaded.offloaded() == []
    assert (there.id, LoadedState.UNLOADED) in desk.events


async def test_a_load_that_is_given_up_leaves_the_model_waiting(desk: Desk) -> None:
    there = on_device(desk, desk.one)
    await leave(kept_of(desk), desk, there)
    desk.loaded.begin("one", "cuda:0", "job")
    assert [one.state for one in desk.loaded.everything() if one.id == there.id] == [LoadedState.LOADING]
    desk.loaded.leave("job")
    assert [one.state for one in desk.loaded.everything() if one.id == there.id] == [LoadedState.OFFLOADED]
    assert desk.events[-1] == (there.id, LoadedState.OFFLOADED)
