"""Sessions: whatever is asked in whatever order, the jobs are where the session's state says, also over a restart."""

import asyncio
from collections.abc import Callable

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, invariant, rule

from domains.errors import FailedPrecondition
from domains.model.scan import ScanReport
from domains.processing.jobs.event import Cancelled, JobEvent, Paused, ScanResult, Started, Succeeded
from domains.processing.jobs.instant import Instant
from domains.processing.jobs.job import JobOptions
from domains.processing.jobs.jobs import Jobs
from domains.processing.jobs.kinds import ScanWork
from domains.processing.jobs.live_job import receipt_of
from domains.processing.jobs.session_log import News
from domains.processing.jobs.state import AT_REST, JobState
from domains.processing.jobs.store import JobStore
from domains.processing.sessions.live_session import Change
from domains.processing.sessions.news import Told
from domains.processing.sessions.session import CloseAction, SessionFilter, SessionSettings, SessionState
from domains.processing.sessions.sessions import Sessions
from domains.processing.sessions.store import SessionStore
from domains.progress import Stage
from domains.stop import Origin
from domains.storage import open_database
from tests.domains.memory.scratch import scratch_folder

RECEIPT = receipt_of(Jobs.draft(ScanWork(), JobOptions()), Instant.now())
TAKES = (SessionState.OPEN, SessionState.PAUSED)


class Walk(RuleBasedStateMachine):
    """A model of what must be known: per session its state and what each watcher saw; per job what became of it."""

    sessions = Bundle("sessions")
    jobs = Bundle("jobs")

    def __init__(self) -> None:
        super().__init__()
        self.scratch = scratch_folder()
        self.folder = self.scratch.__enter__()
        self.state: dict[str, SessionState] = {}
        self.of: dict[str, str] = {}
        self.ended: dict[str, JobState] = {}
        self.by_caller: set[str] = set()
        """Paused, or on its way, because a call named the job."""
        self.seen: dict[str, list[tuple[int, object]]] = {}
        self.open()

    def open(self) -> None:
        self.connection = open_database(self.folder)
        self.soon: list[Callable[[], None]] = []
        self.all = Jobs(JobStore(self.connection, self.folder), keep_s=3600)
        store = SessionStore(self.connection, self.folder)
        self.known = Sessions(
            store, self.all, 3600, lambda name: None, soon=self.soon.append, call_later=lambda after_s, call: NoTimer()
        )

    def settle(self) -> None:
        """Do what the event loop does next."""
        while self.soon:
            self.soon.pop(0)()
        for session_id, state in self.state.items():
            live = [job_id for job_id, owner in self.of.items() if owner == session_id and job_id not in self.ended]
            if state is SessionState.CLOSING and not live:
                self.state[session_id] = SessionState.CLOSED

    def refused(self, session_id: str, *states: SessionState) -> bool:
        return self.state[session_id] in states

    @rule(target=sessions)
    def open_session(self) -> str:
        session_id = self.known.open(SessionSettings()).session.id
        self.state[session_id] = SessionState.OPEN
        self.seen[session_id] = []
        return session_id

    @rule(target=jobs, session_id=sessions)
    def submit(self, session_id: str) -> str:
        if self.state[session_id] not in TAKES:
            with pytest.raises(FailedPrecondition):
                self.known.admit(session_id)
            return ""
        self.known.admit(session_id)
        job_id = self.all.submit(ScanWork(), JobOptions(session_id=session_id))[0].id
        self.of[job_id] = session_id
        return job_id

    @rule(job_id=jobs)
    def start(self, job_id: str) -> None:
        """As the dispatcher does it: not while the session holds it back; but it may pause before the job has begun."""
        job = self.all.find(job_id)
        if job is None or job.state not in (JobState.QUEUED, JobState.INTERRUPTED):
            return
        self.all.record(job_id, Started(device_id="sim-0", attempt=job.attempt + 1))
        self.settle()

    @rule(job_id=jobs)
    def obey(self, job_id: str) -> None:
        """A worker's safe point: what was asked of the job happens; otherwise it succeeds."""
        job = self.all.find(job_id)
        if job is None:
            return
        stop = self.all.live(job_id).stop
        events: dict[JobState, JobEvent] = {
            JobState.RUNNING: Succeeded(result=ScanResult(report=ScanReport()), receipt=RECEIPT),
            JobState.PAUSING: Paused(stage=Stage.DENOISING, completed=0, origin=stop.origin if stop else Origin.CALLER),
            JobState.CANCELLING: Cancelled(stage=Stage.DENOISING, latency_s=0.0, cause="", receipt=RECEIPT),
        }
        if job.state in events:
            now = self.all.record(job_id, events[job.state]).state
            if now.ended:
                self.ended[job_id] = now
        self.settle()

    @rule(job_id=jobs)
    def pause_job(self, job_id: str) -> None:
        job = self.all.find(job_id)
        if job is not None and job.state in (JobState.QUEUED, JobState.RUNNING, JobState.INTERRUPTED):
            self.all.pause(job_id)
            self.by_caller.add(job_id)
        self.settle()

    @rule(job_id=jobs)
    def resume_job(self, job_id: str) -> None:
        job = self.all.find(job_id)
        if job is not None and job.state is JobState.PAUSED:
            self.all.let_go_on(job_id)
            self.by_caller.discard(job_id)
        self.settle()

    @rule(session_id=sessions)
    def pause(self, session_id: str) -> None:
        if self.state[session_id] not in TAKES:
            with pytest.raises(FailedPrecondition):
                self.known.pause(session_id)
            return
        self.known.pause(session_id, "lunch")
        self.state[session_id] = SessionState.PAUSED
        self.settle()

    @rule(session_id=sessions)
    def resume(self, session_id: str) -> None:
        if self.state[session_id] not in TAKES:
            with pytest.raises(FailedPrecondition):
                self.known.resume(session_id)
            return
        self.known.resume(session_id)
        self.state[session_id] = SessionState.OPEN
        self.settle()

    @rule(session_id=sessions)
    def cancel(self, session_id: str) -> None:
        if self.state[session_id] is SessionState.CLOSED:
            with pytest.raises(FailedPrecondition):
                self.known.cancel(session_id)
            return
        asked = {job_id for job_id in self.unfinished(session_id) if self.job_state(job_id) is not JobState.CANCELLING}
        _, count = self.known.cancel(session_id)
        assert count == len(asked)
        self.note_cancelled(asked)

    @rule(session_id=sessions, action=st.sampled_from(CloseAction))
    def close(self, session_id: str, action: CloseAction) -> None:
        before = {job_id: self.job_state(job_id) for job_id in self.unfinished(session_id)}
        paused_by_session = {
            job_id for job_id, state in before.items() if state is JobState.PAUSED and job_id not in self.by_caller
        }
        told = self.known.close(session_id, action).session.state
        if self.state[session_id] is SessionState.CLOSED:
            assert told is SessionState.CLOSED
            return
        self.state[session_id] = SessionState.CLOSING
        waiting = {job_id for job_id, state in before.items() if state in AT_REST} - paused_by_session
        asked = {
            CloseAction.FINISH: set[str](),
            CloseAction.CANCEL_PENDING: waiting,
            CloseAction.CANCEL_ALL: set(before),
        }[action]
        self.note_cancelled(asked)
        assert (told is SessionState.CLOSED) == (not self.unfinished(session_id))

    def note_cancelled(self, asked: set[str]) -> None:
        for job_id in asked:
            state = self.job_state(job_id)
            assert state in (JobState.CANCELLING, JobState.CANCELLED)
            if state.ended:
                self.ended[job_id] = state
        self.settle()

    @rule()
    def restart(self) -> None:
        """The process dies at this point and another takes up its folder."""
        self.connection.close()
        before = {job_id: self.job_state(job_id) for job_id in self.of if job_id not in self.ended}
        self.open()
        self.all.recover()
        self.known.begin()
        for job_id in before:
            if (now := self.job_state(job_id)).ended:
                self.ended[job_id] = now
        self.settle()

    def job_state(self, job_id: str) -> JobState:
        return self.all.get(job_id).state

    def unfinished(self, session_id: str) -> list[str]:
        return [job_id for job_id, owner in self.of.items() if owner == session_id and job_id not in self.ended]

    @invariant()
    def sessions_are_what_was_asked(self) -> None:
        for session_id, state in self.state.items():
            assert self.known.get(session_id).session.state is state
        listed, _ = self.known.page(SessionFilter(), None, 1000)
        assert [view.session.id for view in listed] == list(self.state)[::-1]

    @invariant()
    def jobs_are_where_the_session_says(self) -> None:
        for job_id, session_id in self.of.items():
            state, session = self.job_state(job_id), self.state[session_id]
            assert state is not JobState.RUNNING or session is not SessionState.PAUSED
            assert session is not SessionState.CLOSED or state.ended
            if state is JobState.PAUSED and session is not SessionState.PAUSED:
                assert job_id in self.by_caller

    @invariant()
    def counts_add_up(self) -> None:
        for session_id in self.state:
            view = self.known.get(session_id)
            mine = [self.job_state(job_id) for job_id, owner in self.of.items() if owner == session_id]
            assert view.queued == mine.count(JobState.QUEUED)
            assert view.paused == mine.count(JobState.PAUSED) + mine.count(JobState.INTERRUPTED)
            assert view.totals.succeeded == mine.count(JobState.SUCCEEDED)
            assert view.totals.cancelled == mine.count(JobState.CANCELLED)
            assert view.queued + view.running + view.paused == sum(not state.ended for state in mine)

    @invariant()
    def a_watcher_sees_all_events_in_order_and_none_twice(self) -> None:
        for session_id, seen in self.seen.items():
            self.seen[session_id] = seen + asyncio.run(self.read(session_id, seen[-1][0] if seen else 0))
            told = asyncio.run(self.read(session_id, 0))
            assert told == self.seen[session_id]
            assert [sequence for sequence, _ in told] == sorted({sequence for sequence, _ in told})
            mine = [job_id for job_id, owner in self.of.items() if owner == session_id]
            for job_id in mine:
                journal = [entry.sequence for entry in self.all.live(job_id).journal.after(0)]
                assert [place[1] for _, place in told if isinstance(place, tuple) and place[0] == job_id] == journal

    async def read(self, session_id: str, after: int) -> list[tuple[int, object]]:
        news, told = self.known.news(session_id, after), list[tuple[int, object]]()
        events = news.events()
        while not news.at_end:
            told.append(short(await anext(events)))
        await events.aclose()
        return told

    def teardown(self) -> None:
        self.connection.close()
        self.scratch.__exit__(None, None, None)


def short(told: Told) -> tuple[int, object]:
    sequence, event = told
    match event:
        case News():
            return sequence, (event.job.id, event.entry.sequence, event.job.state, event.entry.value)
        case Change():
            return sequence, (event.view.session.state, event.view.session.etag)


class NoTimer:
    def cancel(self) -> None: ...


TestWalk = Walk.TestCase
TestWalk.settings = settings(max_examples=40, stateful_step_count=25, deadline=None)
