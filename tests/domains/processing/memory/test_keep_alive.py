"""A model is unloaded at the end of its keep-alive, and not while a job uses it."""

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, cast

import pytest

from domains.errors import ErrorReason, Unavailable
from domains.model.loaded import LoadedModel, Stay
from domains.processing.jobs.event import Started
from domains.processing.jobs.job import JobOptions
from domains.processing.jobs.kinds import LoadWork
from domains.processing.memory import keep_alive
from domains.processing.memory.keep_alive import KeepAlive
from tests.domains.processing.scripted_worker import Floor


class Unloads:
    """Unloads at once, unless it is to fail."""

    def __init__(self, floor: Floor) -> None:
        self.floor = floor
        self.failures = 0
        self.tries = 0
        self.tried = asyncio.Event()

    async def unload(self, targets: Sequence[LoadedModel]) -> None:
        self.tries += 1
        self.tried.set()
        if self.failures:
            self.failures -= 1
            raise Unavailable("its worker is being restarted", ErrorReason.WORKER_RESTARTING)
        for one in targets:
            self.floor.loaded.remove(one.id)


class Kept:
    """Models whose keep-alive a turned clock ends."""

    def __init__(self, folder: Path) -> None:
        self.floor = Floor(folder)
        self.now = 0.0
        self.unloads = Unloads(self.floor)
        self.gone = asyncio.Event()
        self.floor.loaded.listeners.append(lambda one, there: None if there else self.gone.set())
        self.keep_alive = KeepAlive(self.floor.loaded, self.floor.jobs, cast(Any, self.unloads), lambda: self.now)

    def load(self, model_id: str, keep_alive_s: float, **stay: Any) -> LoadedModel:
        one = LoadedModel(
            id=f"{model_id}@sim-0",
            model_id=model_id,
            device_id="sim-0",
            components=(),
            load_time_s=0.0,
            last_use_time_s=0.0,
        )
        loaded = self.floor.loaded.put(one, Stay(keep_alive_s=keep_alive_s, **stay))
        self.now = max(self.now, loaded.kept_since_s)
        return loaded

    def ids(self) -> list[str]:
        return [one.model_id for one in self.floor.loaded.list()]

    @asynccontextmanager
    async def running(self) -> AsyncGenerator[None]:
        task = asyncio.create_task(self.keep_alive.keep_up())
        try:
            yield
        finally:
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task


@pytest.fixture
async def kept(tmp_path: Path) -> Any:
    kept = Kept(tmp_path)
    yield kept
    kept.floor.database.close()


async def due(kept: Kept) -> float | None:
    return await kept.keep_alive._unload_due()  # pyright: ignore[reportPrivateUsage]  # what the loop waits for


async def test_only_what_has_expired_goes_and_the_next_look_is_at_the_next_end(kept: Kept) -> None:
    kept.load("short", 10)
    kept.load("long", 100)
    kept.load("always", 0)
    kept.load("pinned", 5, pinned=True)
    assert await due(kept) == pytest.approx(10, abs=1)
    kept.now += 10.5
    assert await due(kept) == pytest.approx(89.5, abs=1)
    assert kept.ids() == ["always", "long", "pinned"]
    kept.now += 100
    assert await due(kept) is None
    assert kept.ids() == ["always", "pinned"]


async def test_a_model_in_use_stays_and_is_looked_at_again(kept: Kept) -> None:
    kept.load("m", 10)
    job_id = kept.floor.jobs.submit(LoadWork(model_id="m"), JobOptions(device_ids=("none",)))[0].id
    kept.floor.jobs.record(job_id, Started(device_id="sim-0", attempt=1))
    kept.now += 11
    assert await due(kept) == 1.0
    assert (kept.ids(), kept.unloads.tries) == (["m"], 0)


async def test_a_worker_that_cannot_unload_now_is_asked_again(kept: Kept) -> None:
    kept.load("m", 10)
    kept.unloads.failures = 1
    kept.now += 11
    assert await due(kept) == 1.0
    assert kept.ids() == ["m"]
    assert await due(kept) is None
    assert kept.ids() == []


async def test_a_new_keep_alive_is_followed_at_once_and_an_end_without_a_change(
    kept: Kept, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keep_alive, "_AGAIN_S", 0.001)
    async with asyncio.timeout(5), kept.running():
        kept.load("m", 1000)
        await asyncio.sleep(0)
        kept.unloads.failures = 1
        kept.now += 2000
        # The change wakes it; the second try comes by the clock alone.
        kept.load("n", 10_000)
        await kept.gone.wait()
    assert (kept.ids(), kept.unloads.tries) == (["n"], 2)
