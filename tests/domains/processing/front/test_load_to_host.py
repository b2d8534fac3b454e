"""A load into the RAM tier: whose it is, how far it is, and what a request to stop leaves."""

import time
from types import SimpleNamespace
from typing import Any

import pytest

from domains.model.loaded import Stay
from domains.processing.front.load_to_host import HostLoadRunner
from domains.processing.jobs.event import LoadResult
from domains.processing.jobs.job import JobOptions
from domains.processing.jobs.kinds import HostLoadWork
from domains.processing.jobs.outcome import Done, Halted
from domains.processing.memory.host_loads import HostLoad
from domains.progress import Progressed, Stage, StageStarted, Unit


class Task:
    """A job that is asked to stop when the test says so."""

    def __init__(self) -> None:
        self.job = SimpleNamespace(id="job-1", options=JobOptions(session_id="ses-1", reservation_id="res-1"))
        self.told: list[object] = []
        self.stopping = False

    def tell(self, report: object) -> None:
        self.told.append(report)

    def is_stopping(self) -> bool:
        return self.stopping


@pytest.mark.parametrize("reused", [False, True])
@pytest.mark.parametrize("stopped", [False, True])
async def test_a_load_is_told_and_ends_with_its_model_or_with_nothing(stopped: bool, reused: bool) -> None:
    task, asked, goes_on, loaded = Task(), list[tuple[str, HostLoad]](), list[bool](), object()

    async def load(model: str, ask: HostLoad, tell: Any, keep_on: Any) -> Any:
        asked.append((model, ask))
        goes_on.append(await keep_on())
        tell(3, 7)
        task.stopping = stopped
        goes_on.append(await keep_on())
        return None if stopped else (loaded, reused)

    catalogue: Any = SimpleNamespace(get=lambda name: f"model {name}")  # pyright: ignore[reportUnknownLambdaType]
    loads: Any = SimpleNamespace(load=load)
    given: Any = task
    begin_s = time.monotonic()
    done = await HostLoadRunner(catalogue, loads).run(HostLoadWork(model_id="m", pin=True, keep_alive_s=9.0), given)
    stay = Stay(pinned=True, keep_alive_s=9.0)
    wanted = HostLoad(stay=stay, job_id="job-1", session_id="ses-1", reservation_id="res-1")
    assert asked == [("model m", wanted)]
    assert goes_on == [True, not stopped]
    assert task.told == [
        StageStarted(stage=Stage.LOADING),
        Progressed(stage=Stage.LOADING, completed=3, total=7, unit=Unit.BYTES),
    ]
    if stopped:
        assert isinstance(done, Halted)
        return
    assert isinstance(done, Done)
    assert isinstance(done.result, LoadResult)
    assert (done.result.loaded, done.result.reused) == (loaded, reused)
    (timing,) = done.receipt.timings
    assert timing.stage is Stage.LOADING
    assert 0.0 <= timing.wall_s <= time.monotonic() - begin_s


def test_a_load_that_asks_for_no_stay_says_nothing_of_it() -> None:
    assert HostLoadWork(model_id="m").stay == Stay(pinned=None, keep_alive_s=None)
