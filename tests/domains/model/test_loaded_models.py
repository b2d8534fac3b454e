"""What the list of loaded models knows: who waits for a load, how long a model stays, and what a slow watcher is told."""

import asyncio
import time
from collections.abc import Iterator

import msgspec
import pytest

from domains.errors import Aborted, ErrorReason
from domains.failure import Failure
from domains.model.execution import Execution
from domains.model.loaded import LoadedChange, LoadedComponent, LoadedModel, LoadedState, Stay
from domains.model.loaded_models import LoadedModels
from domains.model.loaded_watch import LoadedWatch, watching

NAME = "m@gpu"
LOST = Failure(reason=ErrorReason.DEVICE_LOST, message="unplugged")


def one(model: str = "m", device: str = "gpu") -> LoadedModel:
    now = time.time()
    return LoadedModel(
        id=f"{model}@{device}", model_id=model, device_id=device, components=(), load_time_s=now, last_use_time_s=now
    )


@pytest.fixture
def loaded() -> LoadedModels:
    return LoadedModels()


@pytest.fixture
def watch(loaded: LoadedModels) -> Iterator[LoadedWatch]:
    with watching(loaded) as each:
        yield each


async def taken(watch: LoadedWatch, count: int) -> list[tuple[str, str]]:
    changes = [await watch.next() for _ in range(count)]
    return [(change.loaded.id, str(change.loaded.state)) for change in changes]


def test_a_load_is_listed_until_the_last_job_has_left_it(loaded: LoadedModels) -> None:
    changes: list[LoadedChange] = []
    loaded.on_change.append(changes.append)
    for job in ("a", "b"):
        loaded.begin("m", "gpu", job)
    assert [each.state for each in loaded.everything()] == [LoadedState.LOADING]
    assert loaded.list() == []
    loaded.leave("a")
    assert loaded.waiting_for(NAME) == {"b"}
    loaded.leave("b", LOST)
    assert not loaded.everything()
    assert [(each.loaded.state, each.job_id) for each in changes] == [
        (LoadedState.LOADING, "a"),
        (LoadedState.FAILED, "b"),
    ]
    assert changes[-1].loaded.failure == LOST


def test_leaving_after_the_load_changes_nothing(loaded: LoadedModels) -> None:
    loaded.begin("m", "gpu", "a")
    loaded.put(one(), job_id="a")
    loaded.leave("a", LOST)
    assert [each.state for each in loaded.everything()] == [LoadedState.READY]


def test_what_is_asked_of_a_model_on_its_way_holds_when_it_is_there(loaded: LoadedModels) -> None:
    loaded.begin("m", "gpu", "a", "session")
    loaded.update(NAME, Stay(pinned=True, keep_alive_s=60))
    ready = loaded.put(one(), job_id="a", session_id="another")
    assert (ready.pinned, ready.keep_alive_s, ready.session_id) == (True, 60, "session")


def test_a_model_stays_for_its_keep_alive_from_its_last_use(loaded: LoadedModels) -> None:
    loaded.put(one(), Stay(keep_alive_s=60))
    now = time.time()
    assert loaded.get(NAME).stays(now + 59)
    assert not loaded.get(NAME).stays(now + 61)
    loaded.put(msgspec.structs.replace(one(), last_use_time_s=now + 30))
    assert loaded.get(NAME).stays(now + 89)
    pinned = loaded.update(NAME, Stay(pinned=True))
    assert pinned.expire_s is None
    assert pinned.stays(now + 1e9)


def test_a_model_without_a_keep_alive_of_its_own_has_the_servers() -> None:
    usual = LoadedModels(keep_alive_s=7)
    assert usual.put(one()).keep_alive_s == 7
    assert usual.put(one("n"), Stay(keep_alive_s=0)).expire_s is None
    assert usual.put(one(), Stay(keep_alive_s=9)).keep_alive_s == 9
    assert usual.put(one()).keep_alive_s == 9, "a later use asks for nothing"


def test_a_use_changes_no_etag_and_is_no_change(loaded: LoadedModels) -> None:
    first = loaded.put(one())
    changes: list[LoadedChange] = []
    loaded.on_change.append(changes.append)
    loaded.used([NAME, "nothing"])
    assert loaded.get(NAME).last_use_time_s > first.last_use_time_s
    assert loaded.get(NAME).etag == first.etag
    assert changes == []
    with pytest.raises(Aborted):
        loaded.update(NAME, Stay(pinned=True), "another")
    assert loaded.update(NAME, Stay(pinned=True), first.etag).etag != first.etag


async def test_a_slow_watcher_gets_the_newest_state_and_misses_no_end(loaded: LoadedModels, watch: LoadedWatch) -> None:
    for _ in range(3):
        loaded.begin("m", "gpu", "a")
        loaded.put(one())
        loaded.put(one("n"))
        loaded.remove_device("gpu", LOST)
    loaded.begin("m", "gpu", "a")
    loaded.put(one())
    assert await taken(watch, 3) == [(NAME, "failed"), ("n@gpu", "failed"), (NAME, "ready")]
    loaded.remove(NAME)
    assert await taken(watch, 1) == [(NAME, "unloaded")]


def test_who_removes_a_model_gets_it_once(loaded: LoadedModels) -> None:
    ready = loaded.put(one())
    assert loaded.remove(NAME) == ready
    assert loaded.remove(NAME) is None


def test_a_model_on_its_way_has_no_time_of_a_load_or_a_use(loaded: LoadedModels) -> None:
    loaded.begin("m", "gpu", "a", "session")
    (coming,) = loaded.everything()
    assert (coming.load_time_s, coming.last_use_time_s, coming.load_s) == (0.0, 0.0, None)
    assert (coming.id, coming.model_id, coming.device_id, coming.session_id) == (NAME, "m", "gpu", "session")


def test_progress_of_a_load_is_told_once_and_of_nothing_else(loaded: LoadedModels) -> None:
    changes: list[LoadedChange] = []
    loaded.on_change.append(changes.append)
    part = LoadedComponent(id="unet", bytes=10, precision="float16")
    loaded.progress(NAME, (part,))
    assert changes == []
    loaded.begin("m", "gpu", "a")
    for _ in range(2):
        loaded.progress(NAME, (part,))
    assert [each.loaded.components for each in changes] == [(), (part,)]
    assert [each.components for each in loaded.everything()] == [(part,)]


def test_a_model_in_the_ram_tier_is_listed_until_it_is_on_its_way_back(loaded: LoadedModels) -> None:
    changes: list[LoadedChange] = []
    asked = Execution(precision="float16")
    model = msgspec.structs.replace(one(), asked=asked, pinned=True)
    loaded.put(model)
    loaded.remove(NAME)
    loaded.on_change.append(changes.append)
    loaded.offload(model)
    (waiting,) = loaded.offloaded()
    assert (waiting.state, waiting.pinned, loaded.list()) == (LoadedState.OFFLOADED, False, [])
    assert loaded.everything() == [waiting]
    assert loaded.comes_back_as("m", "gpu") == asked
    assert loaded.comes_back_as("m", "cpu") == loaded.comes_back_as("n", "gpu") == Execution()
    loaded.begin("m", "gpu", "a")
    assert [each.state for each in loaded.everything()] == [LoadedState.LOADING], "it is listed once"
    loaded.leave("a")
    assert loaded.everything() == [waiting]
    loaded.forget_offloaded(NAME)
    loaded.forget_offloaded(NAME)
    assert (loaded.everything(), loaded.offloaded()) == ([], [])
    assert [each.loaded.state for each in changes] == [
        LoadedState.OFFLOADED,
        LoadedState.LOADING,
        LoadedState.UNLOADED,
        LoadedState.OFFLOADED,
        LoadedState.UNLOADED,
    ]


def test_models_are_listed_by_device_the_one_used_last_first(loaded: LoadedModels) -> None:
    for device, model, used_s in (("b", "x", 1.0), ("a", "y", 1.0), ("a", "z", 2.0), ("a", "w", 1.0)):
        loaded.put(msgspec.structs.replace(one(model, device), last_use_time_s=used_s))
    loaded.offload(msgspec.structs.replace(one("v", "a"), last_use_time_s=3.0))
    assert [each.id for each in loaded.everything()] == ["v@a", "z@a", "w@a", "y@a", "x@b"]
    assert [each.id for each in loaded.list()] == ["w@a", "x@b", "y@a", "z@a"]


@pytest.mark.parametrize(("offload", "stay_bytes"), [("", 100), ("none", 100), ("component", 0), ("layer", 0)])
def test_parts_that_take_turns_leave_the_device_between_jobs(offload: str, stay_bytes: int) -> None:
    part = LoadedComponent(id="unet", bytes=100, precision="float16", quantization="int8")
    there = msgspec.structs.replace(one(), components=(part,), offload=offload)
    assert there.resident_bytes == stay_bytes
    assert there.size_bytes == 100
    assert there.way == Execution(offload=offload, quantization="int8")


def test_the_etag_of_a_model_follows_its_state_and_not_its_uses() -> None:
    there = one()
    used = msgspec.structs.replace(there, last_use_time_s=7.0, kept_since_s=8.0)
    assert (len(there.etag), used.etag) == (16, there.etag)
    assert msgspec.structs.replace(there, pinned=True).etag != there.etag
    assert msgspec.structs.replace(there, last_use_time_s=0.0, kept_since_s=0.0).etag == there.etag


async def test_changes_come_in_their_order_and_an_end_before_the_next_load(
    loaded: LoadedModels, monkeypatch: pytest.MonkeyPatch
) -> None:
    times = iter([3.0, 1.0, 2.0, 0.5])
    with watching(loaded) as watch:
        for name, state in (("x", LoadedState.FAILED), ("y", LoadedState.READY), ("z", LoadedState.UNLOADED)):
            there = msgspec.structs.replace(one(name), state=state)
            watch.take(LoadedChange(loaded=there, time_s=next(times)))
        watch.take(LoadedChange(loaded=one("x"), time_s=next(times)))
        assert await taken(watch, 4) == [
            ("x@gpu", "failed"),
            ("x@gpu", "ready"),
            ("y@gpu", "ready"),
            ("z@gpu", "unloaded"),
        ], "the clock was set back between the end of x and its next load"
        coming = asyncio.ensure_future(watch.next())
        await asyncio.sleep(0)
        assert not coming.done()
        loaded.put(one("w"))
        assert (await coming).loaded.id == "w@gpu"
    assert loaded.on_change == [], "nothing is noted for a reader that has left"


def test_a_load_that_two_jobs_wait_for_goes_on_for_the_other(loaded: LoadedModels) -> None:
    loaded.begin("m", "gpu", "a")
    loaded.begin("n", "gpu", "a")
    loaded.begin("m", "gpu", "b")
    loaded.leave("a", loaded_id="n@gpu")
    assert [each.id for each in loaded.everything()] == [NAME]
    assert loaded.waiting_for(NAME) == {"a", "b"}
    loaded.leave("a", loaded_id="other@gpu")
    assert loaded.waiting_for(NAME) == {"a", "b"}
    loaded.leave("a")
    assert (loaded.waiting_for(NAME), loaded.waiting_for("n@gpu")) == ({"b"}, set())
    loaded.leave("b", LOST)
    assert loaded.everything() == []


def test_the_models_of_a_device_go_with_its_worker(loaded: LoadedModels) -> None:
    for device in ("a", "b"):
        loaded.put(one("m", device))
    changes: list[LoadedChange] = []
    loaded.on_change.append(changes.append)
    loaded.remove_device("a", LOST)
    assert [each.id for each in loaded.list()] == ["m@b"]
    loaded.remove_device("b")
    assert [(each.loaded.state, each.loaded.failure) for each in changes] == [
        (LoadedState.FAILED, LOST),
        (LoadedState.UNLOADED, None),
    ]
