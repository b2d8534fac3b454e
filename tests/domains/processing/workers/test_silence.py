"""Silence: work that shows no sign of life for unusually long degrades its device until the next sign."""

import asyncio
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from domains import storage
from domains.device.device import DeviceState
from domains.device.devices import Devices
from domains.device.record import DeviceReach
from domains.events import EventLog
from domains.processing.workers.silence import Silences
from domains.processing.workers.worker import Report
from domains.progress import Progressed, Stage, StageStarted, Unit
from tests.domains.processing.scripted_worker import ScriptedWorker, a_device

LEAST_S = 15.0


def step(completed: int) -> Progressed:
    return Progressed(stage=Stage.DENOISING, completed=completed, total=20, unit=Unit.STEPS)


class Watched:
    """A device with a worker, and a clock that the test sets."""

    def __init__(self, folder: Path) -> None:
        self.database: sqlite3.Connection = storage.open_database(folder)
        self.log = EventLog(self.database, folder)
        self.devices = Devices(self.log)
        self.now_s = 1000.0
        self.silences = Silences(self.devices, LEAST_S, clock=lambda: self.now_s)
        self.worker = ScriptedWorker(a_device())
        self.devices.described("sim-0", self.worker.device, DeviceReach(), ready=True)

    def after(self, seconds: float) -> DeviceState:
        self.now_s += seconds
        self.silences.judge("sim-0")
        return self.devices.get("sim-0").state

    def events(self) -> list[str]:
        return [entry.value.kind for entry in self.log.journal.after(0)]


@pytest.fixture
def watched(tmp_path: Path) -> Iterator[Watched]:
    watched = Watched(tmp_path)
    yield watched
    watched.database.close()


async def test_a_device_is_silent_after_the_least_time_and_not_before(watched: Watched) -> None:
    with watched.silences.watching(watched.worker, "job-1") as moved:
        moved(step(1))
        assert watched.after(LEAST_S - 0.1) is DeviceState.AVAILABLE
        assert watched.after(0.2) is DeviceState.DEGRADED
    view = watched.devices.get("sim-0")
    assert "job-1 (denoising)" in view.state_reason
    assert watched.devices.hangs()
    assert watched.events() == ["device.appeared", "device.silent", "device.state_changed"]
    silent, changed = list(watched.log.journal.after(0))[1:]
    assert changed.value.cause_sequence == silent.sequence


async def test_the_next_sign_of_life_ends_the_silence(watched: Watched) -> None:
    with watched.silences.watching(watched.worker, "job-1") as moved:
        assert watched.after(LEAST_S + 1) is DeviceState.DEGRADED
        moved(step(1))
        assert watched.devices.get("sim-0").state is DeviceState.AVAILABLE
    assert not watched.devices.hangs()
    assert watched.events()[-2:] == ["device.responsive", "device.state_changed"]


def take_steps(watched: Watched, moved: Callable[[Report], None], *gaps_s: float) -> None:
    """Steps of denoising, with these gaps between them."""
    moved(step(1))
    for gap_s in gaps_s:
        watched.now_s += gap_s
        moved(step(2))


@pytest.mark.parametrize(("step_s", "limit_s"), [(0.1, LEAST_S), (6, 18), (60, 60 + LEAST_S)])
async def test_a_hang_is_told_soon_after_the_step_that_was_usual(
    watched: Watched, step_s: float, limit_s: float
) -> None:
    """After three times the usual gap, within 15 s of its end."""
    with watched.silences.watching(watched.worker, "job-1") as moved:
        take_steps(watched, moved, step_s, step_s)
        assert watched.after(limit_s - 0.1) is DeviceState.AVAILABLE
        assert watched.after(0.2) is DeviceState.DEGRADED
        assert f"the usual gap is {step_s:g} s" in watched.devices.get("sim-0").state_reason


async def test_slow_steps_are_not_told_as_silence(watched: Watched) -> None:
    with watched.silences.watching(watched.worker, "job-1", 55) as moved:
        moved(step(0))
        for number in range(1, 20):
            assert watched.after(55 + number % 5) is DeviceState.AVAILABLE
            moved(step(number))
    assert "device.silent" not in watched.events()


async def test_estimated_steps_of_jobs_that_share_a_device_add_up(watched: Watched) -> None:
    with (
        watched.silences.watching(watched.worker, "job-1", 20) as first,
        watched.silences.watching(watched.worker, "job-2", 30) as second,
    ):
        first(step(0))
        second(step(0))
        assert watched.after(50 + LEAST_S - 0.1) is DeviceState.AVAILABLE
        assert watched.after(0.2) is DeviceState.DEGRADED
        assert "steps are estimated to take 50 s" in watched.devices.get("sim-0").state_reason
        first(StageStarted(stage=Stage.DECODING))
        assert watched.after(30 + LEAST_S - 0.1) is DeviceState.AVAILABLE
        second(StageStarted(stage=Stage.DECODING))
        assert watched.after(LEAST_S - 0.1) is DeviceState.AVAILABLE
        assert watched.after(0.2) is DeviceState.DEGRADED


async def test_the_usual_gap_counts_in_its_stage_only(watched: Watched) -> None:
    with watched.silences.watching(watched.worker, "job-1") as moved:
        take_steps(watched, moved, 10, 10)
        moved(StageStarted(stage=Stage.DECODING))
        assert watched.after(LEAST_S + 0.1) is DeviceState.DEGRADED


async def test_usual_gaps_outlive_their_job(watched: Watched) -> None:
    with watched.silences.watching(watched.worker, "job-1") as moved:
        take_steps(watched, moved, 10, 10)
    with watched.silences.watching(watched.worker, "job-2") as moved:
        moved(step(1))
        assert watched.after(10 + LEAST_S - 0.1) is DeviceState.AVAILABLE


async def test_a_hang_that_ended_does_not_hide_the_next_one(watched: Watched) -> None:
    with watched.silences.watching(watched.worker, "job-1") as moved:
        take_steps(watched, moved, 1, 1, 200, 1)
        assert watched.after(LEAST_S - 0.1) is DeviceState.AVAILABLE
        assert watched.after(0.2) is DeviceState.DEGRADED


async def test_a_sign_from_one_job_is_a_sign_from_the_device(watched: Watched) -> None:
    with (
        watched.silences.watching(watched.worker, "job-1"),
        watched.silences.watching(watched.worker, "job-2") as moved,
    ):
        watched.now_s += LEAST_S - 1
        moved(step(1))
        assert watched.after(2) is DeviceState.AVAILABLE


async def test_an_idle_device_is_never_silent(watched: Watched) -> None:
    with watched.silences.watching(watched.worker, "job-1") as moved:
        moved(step(1))
    watched.now_s += 100 * LEAST_S
    with watched.silences.watching(watched.worker, "job-2"):
        assert watched.after(LEAST_S - 1) is DeviceState.AVAILABLE


async def test_the_end_of_its_worker_ends_the_silence_without_a_sign_of_life(watched: Watched) -> None:
    with watched.silences.watching(watched.worker, "job-1"):
        watched.after(LEAST_S + 1)
    assert watched.devices.get("sim-0").condition.silent
    watched.devices.worker_gone("sim-0", None)
    assert not watched.devices.get("sim-0").condition.silent
    assert "device.responsive" not in watched.events()


async def test_one_device_that_moves_is_enough(watched: Watched) -> None:
    watched.devices.described("sim-1", a_device("sim-1"), DeviceReach(), ready=True)
    with watched.silences.watching(watched.worker, "job-1"):
        watched.after(LEAST_S + 1)
    assert not watched.devices.hangs()


class Timers:
    """The timers that were set, in order."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.every: list[asyncio.TimerHandle] = []
        loop = asyncio.get_running_loop()
        later = loop.call_later

        def call_later(delay_s: float, call: Callable[..., object], *given: Any) -> asyncio.TimerHandle:
            self.every.append(later(delay_s, call, *given))
            return self.every[-1]

        monkeypatch.setattr(loop, "call_later", call_later)

    @property
    def pending(self) -> int:
        return sum(not one.cancelled() for one in self.every)


async def test_one_timer_waits_for_each_device_and_none_for_one_without_work(
    watched: Watched, monkeypatch: pytest.MonkeyPatch
) -> None:
    timers = Timers(monkeypatch)
    with watched.silences.watching(watched.worker, "job-1") as moved:
        for count in range(3):
            moved(StageStarted(stage=Stage.LOADING if count % 2 else Stage.DENOISING))
            assert timers.pending == 1
        with watched.silences.watching(watched.worker, "job-2"):
            assert timers.pending == 1
        assert timers.pending == 1
        with watched.silences.watching(ScriptedWorker(watched.worker.device), "job-3"):
            assert timers.pending == 1, "another worker: the first one's timer is over"
    assert (timers.pending, len(timers.every) > 3) == (0, True)


async def test_the_estimate_of_a_job_counts_no_more_when_it_has_left(watched: Watched) -> None:
    with watched.silences.watching(watched.worker, "job-1") as moved:
        moved(step(1))
        with watched.silences.watching(watched.worker, "job-2", step_s=100.0) as other:
            other(step(1))
            assert watched.after(LEAST_S + 1) is DeviceState.AVAILABLE
            moved(step(1))
        # The same id without an estimate, as a job that is tried again with other work.
        with watched.silences.watching(watched.worker, "job-2") as other:
            other(step(1))
            assert watched.after(LEAST_S + 1) is DeviceState.DEGRADED


async def test_a_device_that_showed_no_usual_gap_is_silent_after_the_least_time_however_short(
    watched: Watched,
) -> None:
    watched.silences = Silences(watched.devices, 0.5, clock=lambda: watched.now_s)
    with watched.silences.watching(watched.worker, "job-1"):
        assert watched.after(0.4) is DeviceState.AVAILABLE
        assert watched.after(0.2) is DeviceState.DEGRADED
    assert "no usual gap was measured" in watched.devices.get("sim-0").state_reason
