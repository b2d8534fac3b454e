"""Sessions: idle time, retention, sums, limits, and what a full disk does."""

import asyncio
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from domains.clock import ClockStep, ExpiryClock
from domains.errors import DeviceOpsError, ErrorReason, FailedPrecondition, NotFound, ResourceExhausted
from domains.model.scan import ScanReport
from domains.processing.jobs.event import JobReceipt, Paused, ScanResult, Started, Succeeded
from domains.processing.jobs.job import JobOptions
from domains.processing.jobs.jobs import Jobs
from domains.processing.jobs.kinds import ScanWork
from domains.processing.jobs.session_log import News
from domains.processing.jobs.state import JobState
from domains.processing.jobs.store import JobStore
from domains.processing.sessions.live_session import KEPT
from domains.processing.sessions.session import (
    CloseAction,
    SessionFilter,
    SessionLimits,
    SessionSettings,
    SessionState,
    SessionTotals,
)
from domains.processing.sessions.sessions import Sessions
from domains.processing.sessions.store import SessionStore
from domains.progress import Receipt, Stage, StageStarted, StageTiming
from domains.requests import Asked
from domains.stop import Origin
from domains.storage import open_database

KEEP_S = 3600.0
_EVERY = SessionFilter()


class Timer:
    def __init__(self, due_s: float, call: Callable[[], None]) -> None:
        self.due_s = due_s
        self.call = call
        self.cancelled = False

    def cancel(self) -> None:
        self.cancelled = True


class Bench:
    """Sessions whose time stands still."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.now_s = 1000.0
        self.device_bytes: int | None = None
        self.timers: list[Timer] = []
        self.database = open_database(folder)
        self.expiry = ExpiryClock(lambda: self.now_s)
        self.open()

    def open(self) -> None:
        """As a new process would."""
        self.jobs = Jobs(JobStore(self.database, self.folder), KEEP_S)
        self.sessions = Sessions(
            SessionStore(self.database, self.folder),
            self.jobs,
            KEEP_S,
            lambda session_id: self.device_bytes,
            expiry=self.expiry,
            max_open=3,
            now=lambda: self.now_s,
            clock=lambda: self.now_s,
            soon=lambda call: call(),
            call_later=self.call_later,
        )

    def call_later(self, after_s: float, call: Callable[[], None]) -> Timer:
        self.timers.append(Timer(self.now_s + after_s, call))
        return self.timers[-1]

    def turn(self, seconds: float) -> None:
        """Let time pass, and the timers fire."""
        self.now_s += seconds
        while due := [one for one in self.timers if one.due_s <= self.now_s]:
            self.timers = [one for one in self.timers if one not in due]
            for one in due:
                if not one.cancelled:
                    one.call()

    def opened(self, idle_s: float | None = None, **limits: int) -> str:
        settings = SessionSettings(idle_timeout_s=idle_s, limits=SessionLimits(**limits) if limits else None)
        return self.sessions.open(settings).session.id

    def submit(self, session_id: str) -> str:
        self.sessions.admit(session_id)
        return self.jobs.submit(ScanWork(), JobOptions(session_id=session_id))[0].id

    def end(self, job_id: str, work: Receipt | None = None) -> None:
        self.jobs.record(job_id, Started(device_id="sim-0", attempt=1))
        receipt = JobReceipt(work=work or Receipt(), queue_s=2.0, run_s=3.0, attempts=1)
        self.jobs.record(job_id, Succeeded(result=ScanResult(report=ScanReport()), receipt=receipt))

    def state(self, session_id: str) -> SessionState:
        return self.sessions.live(session_id).session.state


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    bench = Bench(tmp_path)
    with closing(bench.database):
        yield bench


def test_a_session_that_is_not_used_closes_by_itself(bench: Bench) -> None:
    idle, busy, never = bench.opened(60), bench.opened(60), bench.opened()
    job_id = bench.submit(busy)
    bench.turn(59)
    assert bench.state(idle) is SessionState.OPEN
    bench.turn(1)
    assert bench.state(idle) is SessionState.CLOSED
    bench.turn(1000)
    assert (bench.state(busy), bench.state(never)) == (SessionState.OPEN, SessionState.OPEN)
    bench.end(job_id)
    bench.turn(59)
    assert bench.state(busy) is SessionState.OPEN
    bench.turn(1)
    assert bench.state(busy) is SessionState.CLOSED


def test_a_call_and_a_watcher_are_signs_of_life(bench: Bench) -> None:
    name = bench.opened(60)
    bench.turn(59)
    bench.sessions.get(name)
    bench.turn(59)
    assert bench.state(name) is SessionState.OPEN
    with bench.sessions.watching(name):
        bench.turn(1000)
        assert bench.state(name) is SessionState.OPEN
    bench.turn(60)
    assert bench.state(name) is SessionState.CLOSED


@pytest.mark.parametrize("call", ["get", "update", "pause", "resume", "admit"])
def test_each_call_about_a_session_is_a_sign_of_life(bench: Bench, call: str) -> None:
    name = bench.opened(60)
    given = (SessionSettings(weight=2.0), ["weight"]) if call == "update" else ()
    bench.turn(59)
    getattr(bench.sessions, call)(name, *given)
    bench.turn(59)
    assert bench.state(name) is not SessionState.CLOSED
    bench.turn(1)
    assert bench.state(name) is SessionState.CLOSED


def test_a_list_is_no_sign_of_life(bench: Bench) -> None:
    name = bench.opened(60)
    bench.turn(59)
    bench.sessions.page(_EVERY, None, 10)
    bench.turn(1)
    assert bench.state(name) is SessionState.CLOSED


def test_the_idle_time_can_be_changed_and_begins_again_after_a_restart(bench: Bench) -> None:
    name = bench.opened()
    bench.sessions.update(name, SessionSettings(idle_timeout_s=30), ["idle_timeout"])
    bench.turn(29)
    bench.timers.clear()
    bench.open()
    bench.sessions.begin()
    bench.turn(29)
    assert bench.state(name) is SessionState.OPEN
    bench.turn(1)
    assert bench.state(name) is SessionState.CLOSED


def test_too_many_open_sessions_are_refused(bench: Bench) -> None:
    names = [bench.opened() for _ in range(3)]
    with pytest.raises(ResourceExhausted) as told:
        bench.opened()
    assert (told.value.reason, told.value.facts) == (ErrorReason.QUOTA_EXCEEDED, {"limit": "3"})
    bench.sessions.close(names[0])
    bench.opened()


def test_an_ended_session_goes_when_its_time_is_over_and_its_jobs_are_gone(bench: Bench) -> None:
    name = bench.opened()
    job_id = bench.submit(name)
    bench.end(job_id)
    bench.sessions.close(name)
    for listener in bench.expiry.on_step:
        listener(ClockStep(delta_s=100.0, from_s=0.0, before_s=1e9))
    bench.turn(KEEP_S + 1)
    bench.sessions.expire()
    assert bench.state(name) is SessionState.CLOSED, "the clock was set forward meanwhile"
    bench.turn(100)
    bench.sessions.expire()
    assert bench.state(name) is SessionState.CLOSED, "it has a job"
    bench.jobs.delete(job_id)
    bench.expiry.held = True
    bench.sessions.expire()
    assert bench.state(name) is SessionState.CLOSED, "the date is in doubt"
    bench.expiry.held = False
    bench.sessions.expire()
    with pytest.raises(NotFound):
        bench.sessions.get(name)


def test_what_was_used_is_summed_and_outlives_jobs_and_the_process(bench: Bench) -> None:
    name = bench.opened()
    timings = (
        StageTiming(stage=Stage.DENOISING, wall_s=3.0, device_s=2.5),
        StageTiming(stage=Stage.ENCODING, wall_s=1),
    )
    jobs = [bench.submit(name) for _ in range(2)]
    for job_id in jobs:
        bench.end(job_id, Receipt(steps_executed=20, timings=timings))
    bench.jobs.delete(jobs[0])
    told = bench.sessions.get(name)
    assert (told.totals.succeeded, told.totals.steps, told.totals.device_s) == (2, 40, 5.0)
    assert (told.totals.run_s, told.totals.queue_s) == (6.0, 4.0)
    bench.open()
    assert bench.sessions.get(name).totals == told.totals


def test_device_time_that_nothing_measured_is_absent(bench: Bench) -> None:
    name = bench.opened()
    bench.end(bench.submit(name), Receipt(timings=(StageTiming(stage=Stage.DENOISING, wall_s=3.0),)))
    assert bench.sessions.get(name).totals.device_s is None


def test_a_limit_on_device_memory_holds_jobs_back_while_it_is_reached(bench: Bench) -> None:
    name = bench.opened(max_device_bytes=100)
    for measured, held in ((None, False), (99, False), (100, True), (300, True)):
        bench.device_bytes = measured
        assert bench.sessions.terms.holds_back(name, 1) is held
    told = list[str]()
    bench.sessions.on_terms.append(told.append)
    bench.opened()
    bench.sessions.memory_measured()
    assert told == [name]


async def test_a_watcher_that_was_away_for_long_reads_from_the_disk_what_memory_has_dropped(bench: Bench) -> None:
    name = bench.opened()
    job_id = bench.submit(name)
    bench.jobs.record(job_id, Started(device_id="sim-0", attempt=1))
    for _ in range(2 * KEPT):
        bench.jobs.record(job_id, StageStarted(stage=Stage.DENOISING))
    events = bench.sessions.news(name).events()
    told = [await anext(events) for _ in range(2 * KEPT + 3)]
    assert [sequence for sequence, _ in told] == list(range(1, 2 * KEPT + 4))
    assert [event.entry.sequence for _, event in told if isinstance(event, News)] == list(range(1, 2 * KEPT + 3))
    assert {event.job.state for _, event in told[2:] if isinstance(event, News)} == {JobState.RUNNING}
    await events.aclose()


@pytest.mark.parametrize("restarted", [False, True], ids=["in memory", "on disk"])
async def test_events_of_a_deleted_job_are_told_to_nobody_any_more(bench: Bench, restarted: bool) -> None:
    name = bench.opened()
    stays, gone = bench.submit(name), bench.submit(name)
    bench.end(gone)
    bench.jobs.delete(gone)
    if restarted:
        bench.open()
        bench.jobs.recover()
    events = bench.sessions.news(name).events()
    await anext(events)
    _, first = await anext(events)
    coming = asyncio.ensure_future(anext(events))
    await asyncio.sleep(0)
    assert not coming.done()
    bench.jobs.pause(stays)
    _, second = await coming
    assert [event.job.id for event in (first, second) if isinstance(event, News)] == [stays, stays]
    await events.aclose()


def test_a_full_disk_refuses_a_session_and_keeps_a_closing_one(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    name = bench.opened()
    job_id = bench.submit(name)
    bench.sessions.close(name)
    full = ResourceExhausted("the disk is full", ErrorReason.STORAGE_FULL)

    def refuse(*_: object) -> None:
        raise full

    with monkeypatch.context() as patch:
        patch.setattr(SessionStore, "change", refuse)
        bench.jobs.cancel(job_id)
        assert bench.state(name) is SessionState.CLOSING
    bench.sessions.expire()
    assert bench.state(name) is SessionState.CLOSED
    monkeypatch.setattr(SessionStore, "add", refuse)
    with pytest.raises(DeviceOpsError) as told:
        bench.opened()
    assert told.value.reason is ErrorReason.STORAGE_FULL


def test_a_repeated_request_opens_nothing_after_a_restart_either(bench: Bench) -> None:
    asked = Asked(scope="OpenSession", request_id="r", digest="d")
    name = bench.sessions.open(SessionSettings(), asked).session.id
    bench.open()
    assert bench.sessions.open(SessionSettings(), asked).session.id == name


def test_a_session_has_its_share_and_says_why_it_starts_no_more_jobs(bench: Bench) -> None:
    name = bench.opened(max_running_jobs=2)
    bench.sessions.update(name, SessionSettings(weight=3.0), ["weight"])
    terms = bench.sessions.terms
    assert (terms.weight(name), terms.weight("")) == (3.0, 1.0)
    assert [terms.holds_back(name, running) for running in (1, 2, 3)] == [False, True, True]
    assert (terms.holds_back("none", 9), terms.held_because("none")) == (False, "")
    assert terms.held_because(name) == f"session {name} has reached a limit of its own on what runs"
    for cause, told in (("", ""), ("lunch", ": lunch")):
        bench.sessions.pause(name, cause)
        assert terms.holds_back(name, 0)
        assert terms.held_because(name) == f"session {name} is paused{told}"
        bench.sessions.resume(name)


def test_a_closing_session_ends_with_its_last_job(bench: Bench) -> None:
    name = bench.opened()
    first, last = bench.submit(name), bench.submit(name)
    bench.sessions.close(name)
    bench.end(first)
    assert bench.state(name) is SessionState.CLOSING
    bench.end(last)
    assert bench.state(name) is SessionState.CLOSED


def test_a_job_does_what_its_session_asks_whatever_comes_first(bench: Bench) -> None:
    name = bench.opened()
    job_id = bench.submit(name)
    bench.sessions.pause(name)
    assert bench.jobs.get(job_id).state is JobState.QUEUED
    bench.jobs.record(job_id, Started(device_id="sim-0", attempt=1))
    assert bench.jobs.get(job_id).state is JobState.PAUSING
    bench.sessions.resume(name)
    bench.jobs.record(job_id, Paused(stage=Stage.DENOISING, completed=1, origin=Origin.SESSION))
    assert bench.jobs.get(job_id).state is JobState.QUEUED


def test_listeners_get_each_change_with_what_was_before(bench: Bench) -> None:
    told: list[tuple[SessionState, SessionState | None]] = []
    bench.sessions.listeners.append(
        lambda view, before: told.append((view.session.state, before.session.state if before else None))
    )
    name = bench.opened()
    bench.sessions.pause(name)
    bench.sessions.pause(name)
    bench.sessions.resume(name)
    bench.sessions.close(name)
    assert told == [
        (SessionState.OPEN, None),
        (SessionState.PAUSED, SessionState.OPEN),
        (SessionState.OPEN, SessionState.PAUSED),
        (SessionState.CLOSING, SessionState.OPEN),
        (SessionState.CLOSED, SessionState.CLOSING),
    ]


def test_whatever_changes_the_terms_of_its_jobs_is_told_at_once(bench: Bench) -> None:
    name = bench.opened()
    told = list[str]()
    bench.sessions.on_terms.append(told.append)
    calls: list[tuple[Callable[[], object], int]] = [
        (lambda: bench.sessions.update(name, SessionSettings(weight=2.0), ["weight"]), 1),
        (lambda: bench.sessions.update(name, SessionSettings(weight=2.0), ["weight"]), 0),
        (lambda: bench.sessions.pause(name), 1),
        (lambda: bench.sessions.pause(name), 0),
        (lambda: bench.sessions.resume(name), 1),
        (lambda: bench.sessions.close(name), 1),
    ]
    for call, count in calls:
        told.clear()
        call()
        assert told == [name] * count


async def test_events_end_with_their_session(bench: Bench) -> None:
    name = bench.opened()
    told = [sequence async for sequence, _ in _until_closed(bench, name)]
    assert told == [1, 2, 3]


async def _until_closed(bench: Bench, name: str) -> AsyncGenerator[tuple[int, object]]:
    async with asyncio.timeout(5):
        async for sequence, event in bench.sessions.news(name).events():
            if sequence == 1:
                bench.sessions.close(name)
            yield sequence, event


def test_places_after_a_crash_are_above_every_place_that_a_watcher_may_have_seen(bench: Bench) -> None:
    name = bench.opened()
    job_id = bench.submit(name)
    bench.jobs.record(job_id, Started(device_id="sim-0", attempt=1))
    live, ahead = bench.sessions.live(name), set[int]()
    for _ in range(1100):
        bench.jobs.record(job_id, StageStarted(stage=Stage.DENOISING))
        ahead.add(live.ceiling - live.last_sequence)
    assert (min(ahead), max(ahead)) == (0, 1000), "the disk reserves a thousand places at a time"
    seen = live.last_sequence
    bench.open()
    assert bench.sessions.live(name).next_sequence() == live.ceiling + 1 > seen


async def test_ended_sessions_are_looked_at_again_after_a_full_disk(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks, pauses_s = list[int](), list[float]()

    def expire() -> None:
        looks.append(len(looks))
        if len(looks) == 1:
            raise ResourceExhausted("the disk is full", ErrorReason.STORAGE_FULL)

    async def sleep(seconds: float) -> None:
        pauses_s.append(seconds)
        if len(pauses_s) == 2:
            raise asyncio.CancelledError

    monkeypatch.setattr(bench.sessions, "expire", expire)
    monkeypatch.setattr("domains.processing.sessions.sessions.asyncio.sleep", sleep)
    with capture_logs() as lines, pytest.raises(asyncio.CancelledError):
        await bench.sessions.keep_up(30.0)
    assert (looks, pauses_s) == ([0, 1], [30.0, 30.0])
    assert [(line["event"], line["reason"]) for line in lines] == [
        ("ended sessions could not be deleted", ErrorReason.STORAGE_FULL)
    ]


def test_pages_of_sessions_follow_each_other_newest_first(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    names = [bench.opened() for _ in range(3)]
    bench.sessions.close(names[0])
    names += [bench.opened()]
    newest, place = bench.sessions.page(_EVERY, None, 3)
    assert [view.session.id for view in newest] == names[:0:-1]
    assert place is not None
    rest, end = bench.sessions.page(_EVERY, place, 3)
    assert ([view.session.id for view in rest], end) == ([names[0]], None)
    assert bench.sessions.page(_EVERY, None, 4)[1] is None
    monkeypatch.setattr("domains.processing.sessions.store.LOOKED", 2)
    closed = SessionFilter(states=(SessionState.CLOSED,))
    looked, place = bench.sessions.page(closed, None, 10)
    assert (looked, place is not None) == ([], True), "a page looks at a bounded number"
    found, end = bench.sessions.page(closed, place, 10)
    assert ([view.session.id for view in found], end) == ([names[0]], None)


def test_a_file_that_two_jobs_made_counts_once_in_the_results_of_a_session(bench: Bench) -> None:
    name = bench.opened()
    store, jobs = SessionStore(bench.database, bench.folder), [bench.submit(name) for _ in range(2)]
    assert bench.sessions.get(name).result_bytes == 0
    with bench.database:
        for job_id, blob_id, size in ((jobs[0], "b1", 5), (jobs[1], "b1", 5), (jobs[1], "b2", 7), (jobs[1], "b2", 7)):
            store.insert_result(bench.database, name, job_id, blob_id, size)
    assert bench.sessions.get(name).result_bytes == 12


def test_a_session_that_closes_takes_nothing_new_and_names_the_field(bench: Bench) -> None:
    name = bench.opened()
    bench.submit(name)
    assert bench.sessions.check_open(name, "options.session_id").session.id == name
    bench.sessions.close(name)
    for call, field in ((bench.sessions.check_open, "session_id"), (bench.sessions.admit, "options.session_id")):
        with pytest.raises(FailedPrecondition) as refused:
            call(name)
        assert (refused.value.reason, refused.value.facts["field"], refused.value.facts["state"]) == (
            ErrorReason.ILLEGAL_STATE,
            field,
            "closing",
        )


def test_cancelling_a_session_cancels_its_jobs_and_tells_how_many(bench: Bench) -> None:
    name = bench.opened()
    jobs = [bench.submit(name) for _ in range(2)]
    view, count = bench.sessions.cancel(name, "enough")
    assert (view.session.id, count, [bench.jobs.get(job_id).state for job_id in jobs]) == (
        name,
        2,
        [JobState.CANCELLED] * 2,
    )
    last = bench.submit(name)
    closed = bench.sessions.close(name, CloseAction.CANCEL_ALL)
    assert bench.jobs.get(last).state is JobState.CANCELLED
    assert (closed.session.id, bench.state(name)) == (name, SessionState.CLOSED)
    assert bench.sessions.close(name).session == bench.sessions.get(name).session, "an ended one stays as it is"
    assert bench.sessions.get(name).totals.cancelled == 3


def test_sums_count_each_end_by_its_kind(bench: Bench) -> None:
    receipt = JobReceipt(work=Receipt(steps_executed=3), queue_s=2.0, run_s=5.0, attempts=1)
    totals = SessionTotals()
    for state in (JobState.SUCCEEDED, JobState.FAILED, JobState.FAILED, JobState.CANCELLED, None):
        totals = totals.with_job(state, receipt, images=1)
    assert (totals.succeeded, totals.failed, totals.cancelled) == (1, 2, 1)
    assert (totals.run_s, totals.queue_s, totals.steps, totals.images) == (25.0, 10.0, 15, 5)
    session = bench.sessions.get(bench.opened()).session
    assert len(session.etag) == 16


def test_an_end_that_a_full_disk_refuses_is_logged(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    name = bench.opened()

    def refuse(*_: object) -> None:
        raise ResourceExhausted("the disk is full", ErrorReason.STORAGE_FULL)

    job_id = bench.submit(name)
    bench.sessions.close(name)
    monkeypatch.setattr(SessionStore, "change", refuse)
    with capture_logs() as lines:
        bench.jobs.cancel(job_id)
    told = [(line["event"], line["session_id"], line["reason"]) for line in lines if "session_id" in line]
    assert told == [("the end of a session could not be stored", name, ErrorReason.STORAGE_FULL)]
