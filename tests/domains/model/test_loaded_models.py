"""What the list of loaded models knows: who waits for a load, how long a model stays, and what a slow watcher is told."""

import time
from collections.abc import Iterator

import msgspec
import pytest

from domains.errors import Aborted, ErrorReason
from domains.failure import Failure
from domains.model.loaded import LoadedChange, LoadedModel, LoadedState, Stay
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
