"""Hints are read ahead while nothing else needs the disk or the room, and take nothing from others."""

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest
from structlog.testing import capture_logs

from domains.errors import ErrorReason, NotFound, ResourceExhausted
from domains.memory.pools.admission import Admission
from domains.memory.pools.pool import HOST, PoolKind
from domains.memory.pools.pools import Pools
from domains.memory.pools.reclaiming import Reclaiming
from domains.memory.pools.reservations import Reservations
from domains.model.host_models import HostModels
from domains.model.loaded import LoadedModel, LoadedState, Stay
from domains.model.loaded_models import LoadedModels
from domains.model.model import Model, ModelState
from domains.processing.memory.host_loads import HostLoad, HostLoads
from domains.processing.memory.prefetch import Hint, Hinted, Prefetching
from domains.processing.sessions.session import Session, SessionState, SessionView
from tests.domains.memory.scripted_pool import ScriptedPool, ScriptedReclaimer
from tests.domains.model.test_host_models import a_model, always, size_of

END_S = 20.0


class Shelf:
    """A catalogue of these models."""

    def __init__(self, models: list[Model]) -> None:
        self.models = {model.id: model for model in models}

    def find(self, model_id: str) -> Model | None:
        return self.models.get(model_id)

    def get(self, model_id: str) -> Model:
        if model_id not in self.models:
            raise NotFound(model_id, ErrorReason.MODEL_NOT_FOUND)
        return self.models[model_id]


class Desk:
    """A RAM tier with room for two of three models, in a pool `host`."""

    def __init__(self, folder: Path) -> None:
        models = [a_model(folder / name, value) for name, value in (("one", 1.0), ("two", 2.0), ("three", 3.0))]
        self.one, self.two, self.three = models
        self.size = size_of(self.one)
        self.shelf = Shelf(models)
        self.loaded = LoadedModels()
        self.events: list[tuple[str, LoadedState]] = []
        self._told = asyncio.Event()
        self.loaded.on_change.append(lambda change: self._tell(change.loaded))
        self.source = ScriptedPool(10**9, HOST, PoolKind.HOST)
        pools = Pools()
        pools.add(self.source)
        self.admission = admission = Admission(pools, Reservations(pools))
        reclaiming = Reclaiming(pools, ScriptedReclaimer(self.source))  # pyright: ignore[reportArgumentType]
        self.tier = HostModels(self.loaded, lambda: 2 * self.size)
        self.loads = HostLoads(self.tier, self.loaded, admission, reclaiming, pools)
        self.ahead = Prefetching(self.loads, self.loaded, self.shelf)  # pyright: ignore[reportArgumentType]

    def _tell(self, one: LoadedModel) -> None:
        self.events.append((one.id, one.state))
        self._told.set()

    async def until(self, met: Callable[[], bool]) -> None:
        async with asyncio.timeout(END_S):
            while not met():
                self._told.clear()
                await self._told.wait()

    def ready(self) -> list[str]:
        return [one.id for one in self.loaded.list()]

    def hint(self, *models: Model) -> Hinted:
        return self.ahead.hint("", [Hint(model_id=model.id) for model in models])

    async def load(self, model: Model, stay: Stay | None = None) -> None:
        assert await self.loads.load(model, HostLoad(stay=stay or Stay(), job_id="job"), lambda a, b: None, always)

    def put_on(self, device_id: str, model: Model) -> None:
        name = f"{model.id}@{device_id}"
        value = LoadedModel(
            id=name,
            model_id=model.id,
            device_id=device_id,
            components=(),
            load_time_s=1.0,
            last_use_time_s=1.0,
            model_sha256=model.sha256,
        )
        self.loaded.put(value)


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    return Desk(tmp_path)


@asynccontextmanager
async def reading(desk: Desk) -> AsyncGenerator[None]:
    task = asyncio.create_task(desk.ahead.keep_up())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def test_the_model_needed_first_is_read_first(desk: Desk) -> None:
    hints = [Hint(model_id="one", need_in_s=0.5), Hint(model_id="two")]
    assert desk.ahead.hint("", hints) == Hinted(accepted=("one", "two"), ready=(), findings=())
    async with reading(desk):
        await desk.until(lambda: len(desk.ready()) == 2)
    assert [event for event in desk.events if event[1] is LoadedState.READY] == [
        ("two@host", LoadedState.READY),
        ("one@host", LoadedState.READY),
    ]


@pytest.mark.parametrize("now", ["forgotten", "damaged", "loaded by a caller"])
async def test_a_hint_whose_model_needs_no_reading_any_more_is_passed_over(desk: Desk, now: str) -> None:
    desk.hint(desk.one, desk.two)
    if now == "forgotten":
        del desk.shelf.models["one"]
    elif now == "damaged":
        desk.shelf.models["one"] = msgspec.structs.replace(desk.one, state=ModelState.CORRUPT, problem="cut off")
    else:
        await desk.load(desk.one)
    async with reading(desk):
        await desk.until(lambda: "two@host" in desk.ready())
    loads = [name for name, state in desk.events if state is LoadedState.LOADING and name == "one@host"]
    assert len(loads) == (now == "loaded by a caller")


@pytest.mark.parametrize(
    ("problem", "level", "event"),
    [
        ("can't start new thread", "info", "a model is not read ahead"),
        ("a bug", "error", "a bug ended a reading ahead"),
    ],
)
async def test_a_model_that_cannot_be_read_ends_no_other_reading_and_is_logged(
    desk: Desk, monkeypatch: pytest.MonkeyPatch, problem: str, level: str, event: str
) -> None:
    load, refused = desk.loads.load, list[str]()

    async def refusing(model: Model, *rest: Any) -> Any:
        if model.id == "one":
            refused.append(model.id)
            raise RuntimeError(problem)
        return await load(model, *rest)

    monkeypatch.setattr(desk.loads, "load", refusing)
    desk.hint(desk.one, desk.two)
    with capture_logs() as lines:
        async with reading(desk):
            await desk.until(lambda: desk.ready() == ["two@host"])
    assert refused == ["one"]
    assert [(line["log_level"], line["event"], line["model_id"]) for line in lines] == [(level, event, "one")]
    assert ("reason" in lines[0]) is (level == "info")


async def test_it_waits_while_a_device_loads_and_then_goes_on(desk: Desk) -> None:
    desk.loaded.begin("three", "sim-0", "job")
    desk.hint(desk.one)
    async with reading(desk):
        await desk.until(lambda: ("one@host", LoadedState.LOADING) in desk.events)
        for percent in range(50):
            desk.loaded.progress("three@sim-0", ())
            await asyncio.sleep(0)
            assert desk.ready() == [], percent
        desk.loaded.leave("job")
        await desk.until(lambda: desk.ready() == ["one@host"])


async def test_hints_that_are_taken_back_end_what_is_read(desk: Desk) -> None:
    desk.loaded.begin("three", "sim-0", "job")
    desk.hint(desk.one)
    async with reading(desk):
        await desk.until(lambda: ("one@host", LoadedState.LOADING) in desk.events)
        assert desk.hint() == Hinted(accepted=(), ready=(), findings=())
        await desk.until(lambda: ("one@host", LoadedState.UNLOADED) in desk.events)
    assert (desk.ready(), desk.tier.held_bytes) == ([], 0)


async def test_the_hints_of_a_session_end_with_it(desk: Desk) -> None:
    desk.loaded.begin("three", "sim-0", "job")
    desk.ahead.hint("s", [Hint(model_id="one")])
    session = Session(id="s", create_time_s=0.0, update_time_s=0.0)
    async with reading(desk):
        await desk.until(lambda: ("one@host", LoadedState.LOADING) in desk.events)
        desk.ahead.session_changed(SessionView(session=session), None)
        assert desk.ready() == []
        closing = msgspec.structs.replace(session, state=SessionState.CLOSING)
        desk.ahead.session_changed(SessionView(session=closing), SessionView(session=session))
        await desk.until(lambda: ("one@host", LoadedState.UNLOADED) in desk.events)


async def test_models_that_are_loaded_where_they_are_needed_are_ready(desk: Desk) -> None:
    desk.put_on("sim-1", desk.one)
    assert desk.hint(desk.one, desk.two).ready == ("one",)
    elsewhere = Hint(model_id="one", device_ids=("sim-0",))
    assert desk.ahead.hint("", [elsewhere]).accepted == ("one",)
    desk.shelf.models["one"] = msgspec.structs.replace(desk.one, sha256="newer")
    assert desk.hint(desk.one).accepted == ("one",)


async def test_what_is_not_read_ahead_says_why(desk: Desk) -> None:
    desk.shelf.models["two"] = msgspec.structs.replace(desk.two, state=ModelState.CORRUPT, problem="cut off")
    told = desk.hint(desk.two, desk.one, desk.three)
    assert (told.accepted, told.ready) == (("one", "three"), ())
    assert [(index, finding.reason) for index, finding in told.findings] == [(0, ErrorReason.MODEL_CORRUPT)]
    desk.shelf.models["two"] = desk.two
    told = desk.hint(desk.one, desk.two, desk.three)
    assert told.accepted == ("one", "two")
    assert [(index, finding.reason) for index, finding in told.findings] == [(2, ErrorReason.BUDGET_EXCEEDED)]
    with pytest.raises(NotFound):
        desk.ahead.hint("", [Hint(model_id="four")])


async def test_hints_drop_what_hints_brought_and_nothing_that_a_caller_loaded(desk: Desk) -> None:
    await desk.load(desk.one)
    desk.hint(desk.two)
    async with reading(desk):
        await desk.until(lambda: "two@host" in desk.ready())
        desk.hint(desk.three)
        await desk.until(lambda: "three@host" in desk.ready())
    assert desk.ready() == ["one@host", "three@host"]


async def test_a_full_pool_leaves_a_hint_until_a_model_has_gone(desk: Desk) -> None:
    desk.put_on("sim-0", desk.three)
    desk.source.others = 10**9
    desk.hint(desk.one)
    async with reading(desk):
        await desk.until(lambda: ("one@host", LoadedState.FAILED) in desk.events)
        desk.source.others = 0
        desk.loaded.remove("three@sim-0")
        await desk.until(lambda: "one@host" in desk.ready())


async def test_a_load_makes_room_in_the_tier_for_itself_but_not_of_what_stays(desk: Desk) -> None:
    await desk.load(desk.one, Stay(pinned=True))
    await desk.load(desk.two)
    await desk.load(desk.three)
    assert desk.ready() == ["one@host", "three@host"]
    desk.loaded.update("three@host", Stay(keep_alive_s=600))
    with pytest.raises(ResourceExhausted) as refused:
        await desk.load(desk.two)
    assert refused.value.reason is ErrorReason.BUDGET_EXCEEDED
    assert desk.ready() == ["one@host", "three@host"]


async def test_a_forecast_names_what_would_go_and_what_is_missing(desk: Desk) -> None:
    await desk.load(desk.one)
    assert (await desk.loads.forecast(desk.one)).size_bytes == 0
    await desk.load(desk.two, Stay(pinned=True))
    found = await desk.loads.forecast(desk.three)
    assert found.size_bytes == desk.size
    assert found.evictions == (("one@host", desk.size),)
    assert found.shortfall_bytes == 0
    desk.loaded.update("one@host", Stay(pinned=True))
    assert (await desk.loads.forecast(desk.three)).shortfall_bytes == desk.size


async def test_a_forecast_says_what_the_hosts_memory_lacks_as_far_as_it_is_known(desk: Desk) -> None:
    desk.source.others = 10**9 - desk.size // 4
    assert (await desk.loads.forecast(desk.one)).shortfall_bytes == desk.size - desk.size // 4
    claim = await desk.admission.admit(HOST, 7, "", "another load")
    assert (await desk.loads.forecast(desk.one)).shortfall_bytes == desk.size - desk.size // 4 + 7
    claim.close()
    desk.source.total = None
    assert (await desk.loads.forecast(desk.one)).shortfall_bytes == 0


async def test_a_model_that_left_the_tier_again_is_read_ahead_once_for_each_hint(desk: Desk) -> None:
    def readings() -> int:
        return desk.events.count(("one@host", LoadedState.LOADING))

    desk.hint(desk.one)
    async with reading(desk):
        await desk.until(lambda: "one@host" in desk.ready())
        desk.tier.drop("one@host")
        desk.hint(desk.two)
        await desk.until(lambda: "two@host" in desk.ready())
        assert readings() == 1
        desk.hint(desk.one)
        await desk.until(lambda: "one@host" in desk.ready())
    assert readings() == 2
