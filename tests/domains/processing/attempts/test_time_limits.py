"""The time of an attempt: what earlier attempts used counts, and nothing is told after its end."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from domains.errors import ErrorReason
from domains.processing.attempts.time_limits import TimeLimits
from domains.processing.jobs.job import JobOptions
from domains.stop import Stop, StopKind

Timers = list[tuple[float, Callable[[], None], asyncio.TimerHandle]]


@pytest.fixture
async def timers(monkeypatch: pytest.MonkeyPatch) -> Timers:
    """Each timer that was started: its delay, what it calls, and its handle."""
    loop, found = asyncio.get_running_loop(), Timers()
    call_later: Any = loop.call_later

    def noted(delay_s: float, call: Callable[[], None]) -> asyncio.TimerHandle:
        handle = call_later(3600, call)
        found.append((delay_s, call, handle))
        return handle

    monkeypatch.setattr(loop, "call_later", noted)
    return found


def live(timers: Timers) -> list[int]:
    """The seconds of the timers that were not cancelled."""
    return [round(delay_s) for delay_s, _, handle in timers if not handle.cancelled()]


async def test_the_run_limit_counts_earlier_attempts_and_what_ran_before_it_changed(timers: Timers) -> None:
    limits = TimeLimits(JobOptions(run_timeout_s=100), print, ran_s=30)
    assert live(timers) == [70]
    limits.change(JobOptions(run_timeout_s=50))
    assert live(timers) == [20]
    limits.change(JobOptions(run_timeout_s=20))
    assert live(timers) == [0]
    limits.change(JobOptions())
    assert live(timers) == []


async def test_the_load_limit_runs_while_a_load_does(timers: Timers) -> None:
    limits = TimeLimits(JobOptions(load_timeout_s=10), print)
    assert live(timers) == []
    limits.loading()
    limits.loading()
    assert live(timers) == [10]
    limits.loaded()
    assert live(timers) == []


async def test_after_the_attempt_no_limit_is_exceeded(timers: Timers) -> None:
    limits = TimeLimits(JobOptions(run_timeout_s=100, load_timeout_s=10), print)
    limits.loading()
    assert live(timers) == [100, 10]
    limits.close()
    assert live(timers) == []


async def test_a_limit_that_is_exceeded_stops_the_job_with_its_reason(timers: Timers) -> None:
    stops: list[Stop] = []
    limits = TimeLimits(JobOptions(run_timeout_s=100, load_timeout_s=10), stops.append)
    limits.loading()
    for _, call, _ in timers:
        call()
    assert [(one.kind, one.reason, one.facts) for one in stops] == [
        (StopKind.TIME_UP, ErrorReason.RUN_TIMEOUT, {"run_timeout_s": "100"}),
        (StopKind.TIME_UP, ErrorReason.LOAD_TIMEOUT, {"load_timeout_s": "10"}),
    ]
    limits.close()
