"""What an attempt does to the list of loaded models: who waits for a load, who uses a model, and what replaces what."""

import msgspec
import pytest

from domains.errors import ErrorReason
from domains.inference.outcome import ModelPlacing
from domains.model.loaded import LoadedChange, LoadedComponent, LoadedModel, LoadedState, Stay
from domains.model.loaded_models import LoadedModels
from domains.processing.attempts.residency import Residency
from domains.processing.jobs.event import LoadResult
from domains.processing.jobs.kinds import LoadWork
from domains.processing.jobs.outcome import Done
from domains.progress import Receipt

NAME = "m@sim-0"
PARTS = (LoadedComponent(id="unet", bytes=7, precision="float32"),)


def loaded(**fields: object) -> LoadedModel:
    base = LoadedModel(id=NAME, model_id="m", device_id="sim-0", components=PARTS, load_time_s=1.0, last_use_time_s=1.0)
    return msgspec.structs.replace(base, **fields)  # pyright: ignore[reportArgumentType]  # fields by name


class Case:
    """A load as one attempt."""

    def __init__(self, **stay: object) -> None:
        self.models = LoadedModels(keep_alive_s=5.0)
        self.changes: list[LoadedChange] = []
        self.models.on_change.append(self.changes.append)
        work = LoadWork(model_id="m", **stay)  # pyright: ignore[reportArgumentType]  # fields by name
        self.one = Residency("job-1", work, self.models, "sim-0", "session-1")


def test_a_load_is_listed_with_its_job_its_session_and_what_is_there() -> None:
    case = Case()
    case.one.begin()
    assert not case.one.reused
    case.one.placing(ModelPlacing(model_id="m", components=PARTS))
    coming = case.models.find(NAME)
    assert coming is not None
    assert (coming.state, coming.session_id, coming.components) == (LoadedState.LOADING, "session-1", PARTS)
    assert case.models.waiting_for(NAME) == {"job-1"}
    case.one.loaded(loaded())
    assert (case.one.model, case.one.reused) == (case.models.get(NAME), False)
    assert case.models.get(NAME).session_id == "session-1"
    assert {change.job_id for change in case.changes} == {"job-1", ""}


def test_a_model_that_was_there_is_reused() -> None:
    case = Case()
    case.one.loaded(loaded())
    assert case.one.reused


@pytest.mark.parametrize(("asked", "keep_alive_s", "pinned"), [({}, 60.0, True), ({"keep_alive_s": 9.0}, 9.0, True)])
def test_a_newer_model_stays_as_long_as_the_one_it_replaces(
    asked: dict[str, float], keep_alive_s: float, pinned: bool
) -> None:
    case = Case(**asked)
    case.models.put(loaded(), Stay(pinned=True, keep_alive_s=60.0))
    case.one.unloaded("m")
    assert case.changes[-1].job_id == "job-1"
    assert case.models.find(NAME) is None
    case.one.loaded(loaded(load_time_s=2.0))
    now = case.models.get(NAME)
    assert (now.keep_alive_s, now.pinned, now.load_time_s) == (keep_alive_s, pinned, 2.0)


def test_an_unpinned_model_is_replaced_by_one_that_the_load_pins() -> None:
    case = Case(pin=True)
    case.models.put(loaded(), Stay(keep_alive_s=60.0))
    case.one.unloaded("m")
    case.one.loaded(loaded())
    assert case.models.get(NAME).pinned


def test_a_load_that_its_worker_took_along_fails_with_why() -> None:
    case = Case()
    case.one.begin()
    case.one.lost("it died")
    case.one.end(None)
    assert case.models.find(NAME) is None
    (_, end) = case.changes
    assert (end.loaded.state, end.job_id) == (LoadedState.FAILED, "job-1")
    failure = end.loaded.failure
    assert failure is not None
    assert (failure.reason, failure.message, failure.facts) == (
        ErrorReason.WORKER_RESTARTING,
        "it died",
        {"device_id": "sim-0"},
    )


def test_a_load_alone_is_no_use_of_the_model() -> None:
    case = Case()
    case.one.loaded(loaded())
    case.one.end(Done(result=LoadResult(loaded=loaded(), reused=False), receipt=Receipt()))
    assert case.models.get(NAME).last_use_time_s == 1.0
