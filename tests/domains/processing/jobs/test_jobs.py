"""Jobs: whatever is asked in whatever order, a journal keeps its rules, also over a restart."""

import asyncio
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import msgspec
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, rule
from structlog.testing import capture_logs

from domains.errors import AlreadyExists, ErrorReason, FailedPrecondition, InvalidRequest, NotFound, ResourceExhausted
from domains.failure import Failure
from domains.inference.generation import Generation
from domains.inference.resolution.resolve import resolve
from domains.journal import Entry
from domains.memory.blobs.blob import Blob
from domains.memory.blobs.store import BlobStore
from domains.model.scan import ScanReport
from domains.processing.jobs import in_memory
from domains.processing.jobs.event import (
    END_STATE,
    NEWEST_ONLY,
    STATE_AFTER,
    Cancelled,
    Checkpoint,
    Failed,
    GeneratedImage,
    GenerationResult,
    Interrupted,
    JobEvent,
    JobProgress,
    OutputReady,
    Paused,
    Queued,
    ScanResult,
    Started,
    Succeeded,
    images_of,
)
from domains.processing.jobs.expiry import Expiry
from domains.processing.jobs.filter import JobFilter
from domains.processing.jobs.instant import Instant
from domains.processing.jobs.job import Job, JobOptions
from domains.processing.jobs.jobs import Jobs
from domains.processing.jobs.kinds import GenerateWork, LoadWork, ScanWork
from domains.processing.jobs.live_job import after, receipt_of
from domains.processing.jobs.rows import StoredJob
from domains.processing.jobs.state import NEXT, JobState
from domains.processing.jobs.store import JobStore
from domains.progress import PreviewReady, Progressed, Stage, StageStarted, Unit
from domains.requests import Asked
from domains.storage import open_database
from tests.domains.inference.on_device.requests import embedded_model
from tests.domains.memory.blobs import opened
from tests.domains.memory.scratch import scratch_folder

RECEIPT = receipt_of(Jobs.draft(ScanWork(), JobOptions()), Instant.now())
MOVED = JobProgress(at=Progressed(stage=Stage.DENOISING, completed=1, total=2, unit=Unit.STEPS), elapsed_s=0.5)
PREVIEW = PreviewReady(image_index=0, step=1, media_type="image/jpeg", width_px=1, height_px=1, data=b"x")
PICTURE = GeneratedImage(
    index=0,
    seed=7,
    width_px=8,
    height_px=8,
    blob=Blob(id="b-1", sha256="0" * 64, size_bytes=1, media_type="image/png", create_time_s=1.0),
)
EVENTS: list[JobEvent] = [
    Started(device_id="cpu", attempt=1),
    StageStarted(stage=Stage.DENOISING),
    MOVED,
    PREVIEW,
    Interrupted(reason=ErrorReason.WORKER_RESTARTING, message="gone"),
    Succeeded(result=ScanResult(report=ScanReport()), receipt=RECEIPT),
    Failed(failure=Failure(reason=ErrorReason.DRIVER_ERROR, message="broken"), receipt=RECEIPT),
    Cancelled(stage=Stage.QUEUED, latency_s=0.0, cause="", receipt=RECEIPT),
]


def facts(entries: list[Entry[JobEvent]]) -> list[tuple[int, float, JobEvent]]:
    return [(entry.sequence, entry.time_s, entry.value) for entry in entries if type(entry.value) not in NEWEST_ONLY]


class Walk(RuleBasedStateMachine):
    """A model of what must be known: per job its state, its durable events, and the highest sequence anybody saw."""

    ids = Bundle("ids")

    def __init__(self) -> None:
        super().__init__()
        self.scratch = scratch_folder()
        self.folder = self.scratch.__enter__()
        self.state: dict[str, JobState] = {}
        self.durable: dict[str, list[tuple[int, float, JobEvent]]] = {}
        self.seen: dict[str, int] = {}
        self.by_request: dict[str, str] = {}
        self.told: list[str] = []
        self.open()

    def open(self) -> None:
        self.connection = open_database(self.folder)
        self.jobs = Jobs(JobStore(self.connection, self.folder), keep_s=3600)
        self.jobs.listeners.append(lambda job: self.told.append(job.id))

    def note(self, job_id: str) -> None:
        """Look at the journal as a watcher would, and check what is new against what was known."""
        live = self.jobs.live(job_id)
        entries = live.journal.after(self.seen.get(job_id, 0))
        assert all(entry.sequence > self.seen.get(job_id, 0) for entry in entries)
        self.durable[job_id] = self.durable.get(job_id, []) + facts(entries)
        self.seen[job_id] = max([self.seen.get(job_id, 0), *(entry.sequence for entry in entries)])
        self.state[job_id] = live.job.state

    @rule(target=ids, request_id=st.sampled_from(["", "", "one", "two"]))
    def submit(self, request_id: str) -> str:
        known = self.by_request.get(request_id)
        job, new = self.jobs.submit(ScanWork(), JobOptions(), Asked(request_id=request_id))
        assert new == (known is None)
        assert known in (None, job.id)
        if request_id:
            self.by_request[request_id] = job.id
        self.note(job.id)
        return job.id

    @rule(job_id=ids, event=st.sampled_from(EVENTS))
    def record(self, job_id: str, event: JobEvent) -> None:
        if job_id not in self.state:
            return
        before = self.state[job_id]
        after = STATE_AFTER.get(type(event), before)
        if before.ended or (after is not before and after not in NEXT[before]):
            with pytest.raises(FailedPrecondition):
                self.jobs.record(job_id, event)
            assert self.jobs.get(job_id).state is before
        else:
            assert self.jobs.record(job_id, event).state is after
        self.note(job_id)

    @rule(job_id=ids)
    def cancel(self, job_id: str) -> None:
        if job_id not in self.state:
            return
        before = self.state[job_id]
        if before.ended and before is not JobState.CANCELLED:
            with pytest.raises(FailedPrecondition) as told:
                self.jobs.cancel(job_id)
            assert told.value.reason is ErrorReason.ILLEGAL_STATE
        else:
            assert self.jobs.cancel(job_id).state in (JobState.CANCELLING, JobState.CANCELLED)
        self.note(job_id)

    @rule(job_id=consumes(ids))
    def delete(self, job_id: str) -> None:
        if job_id not in self.state:
            return
        if not self.state[job_id].ended:
            with pytest.raises(FailedPrecondition):
                self.jobs.delete(job_id)
            return
        self.jobs.delete(job_id)
        with pytest.raises(NotFound):
            self.jobs.get(job_id)
        for known in (self.state, self.durable, self.seen):
            known.pop(job_id)
        self.by_request = {name: owner for name, owner in self.by_request.items() if owner != job_id}

    @rule()
    def restart(self) -> None:
        """The process dies at this point and another takes up its folder."""
        self.connection.close()
        self.told.clear()
        self.open()
        self.jobs.recover()
        for job_id, before in list(self.state.items()):
            stored = facts(self.jobs.live(job_id).journal.after(0))
            assert stored[: len(self.durable[job_id])] == self.durable[job_id]
            after = self.jobs.get(job_id).state
            match before:
                case JobState.RUNNING:
                    assert after is JobState.INTERRUPTED
                case JobState.CANCELLING:
                    assert after is JobState.CANCELLED
                case _:
                    assert after is before
            # Whoever runs jobs hears of all that are to run.
            assert (job_id in self.told) or after not in (JobState.QUEUED, JobState.INTERRUPTED)
            self.note(job_id)

    @invariant()
    def journals_keep_their_rules(self) -> None:
        for job_id, state in self.state.items():
            sequences = [sequence for sequence, _, _ in self.durable[job_id]]
            endings = [type(event) for _, _, event in self.durable[job_id] if type(event) in END_STATE]
            assert sequences == sorted(set(sequences))
            assert sequences[0] == 1
            assert len(endings) == state.ended
            assert not endings or type(self.durable[job_id][-1][2]) is endings[0]
            assert self.jobs.live(job_id).journal.closed == state.ended

    @invariant()
    def the_list_has_every_job_once(self) -> None:
        listed, _ = self.jobs.page(JobFilter(), None, 1000)
        assert sorted(job.id for job in listed) == sorted(self.state)
        assert all(job.state is self.state[job.id] for job in listed)

    def teardown(self) -> None:
        self.connection.close()
        self.scratch.__exit__(None, None, None)


TestWalk = Walk.TestCase
TestWalk.settings = settings(max_examples=60, stateful_step_count=25, deadline=None)


@pytest.fixture
def jobs(tmp_path: Path) -> Iterator[Jobs]:
    connection = open_database(tmp_path)
    yield Jobs(JobStore(connection, tmp_path), keep_s=3600)
    connection.close()


def started(jobs: Jobs) -> Job:
    job, _ = jobs.submit(ScanWork(), JobOptions())
    return jobs.record(job.id, Started(device_id="cpu", attempt=1))


def test_a_request_id_for_other_work_is_refused(jobs: Jobs) -> None:
    first, _ = jobs.submit(ScanWork(), JobOptions(), Asked(request_id="r", digest="scan"))
    with pytest.raises(AlreadyExists) as told:
        jobs.submit(LoadWork(model_id="m"), JobOptions(), Asked(request_id="r", digest="load"))
    assert told.value.reason is ErrorReason.REQUEST_ID_REUSED
    assert told.value.facts["job_id"] == first.id


@pytest.mark.parametrize("request_id", ["x" * 65, "with space", "line\nbreak", "ü"])
def test_a_request_id_is_short_visible_text(jobs: Jobs, request_id: str) -> None:
    with pytest.raises(InvalidRequest) as told:
        jobs.submit(ScanWork(), JobOptions(), Asked(request_id=request_id))
    assert [violation.field for violation in told.value.violations] == ["request_id"]


def test_sequences_go_on_above_unstored_progress_after_a_crash(jobs: Jobs, tmp_path: Path) -> None:
    job = started(jobs)
    for _ in range(2500):
        jobs.record(job.id, MOVED)
    seen = jobs.get(job.id).last_sequence
    connection = open_database(tmp_path)
    again = Jobs(JobStore(connection, tmp_path), keep_s=3600)
    again.recover()
    assert again.get(job.id).last_sequence > seen
    connection.close()


def test_progress_is_not_stored(jobs: Jobs, tmp_path: Path) -> None:
    job = started(jobs)
    jobs.record(job.id, MOVED)
    jobs.record(job.id, StageStarted(stage=Stage.DECODING))
    connection = open_database(tmp_path)
    store = JobStore(connection, tmp_path)
    stored = store.load(job.id)
    assert isinstance(stored, StoredJob)
    assert [type(entry.value).__name__ for entry in stored.events] == ["Queued", "Started", "StageStarted"]
    assert stored.job.progress is None
    connection.close()


def test_jobs_expire_when_they_were_kept_long_enough(jobs: Jobs) -> None:
    kept, _ = jobs.submit(ScanWork(), JobOptions())
    short, _ = jobs.submit(ScanWork(), JobOptions(keep_for_s=1e-9))
    for job in (kept, short):
        jobs.cancel(job.id)
    assert jobs.expired() == [short.id]


def test_pages_are_newest_first_and_meet_without_overlap(jobs: Jobs) -> None:
    made = [jobs.submit(ScanWork(), JobOptions(session_id="b" if n == 2 else "a"))[0].id for n in range(7)]
    place: int | None = None
    found: list[str] = []
    while True:
        page, place = jobs.page(JobFilter(session_id="a"), place, 3)
        found += [job.id for job in page]
        if place is None:
            break
    assert found == [name for name in reversed(made) if name != made[2]]


def test_a_job_is_inherited_from_the_process_that_stored_it_whatever_the_clock_says(
    jobs: Jobs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before, _ = jobs.submit(ScanWork(), JobOptions())
    assert not jobs.inherited(before)
    # The newest number is not given twice, although its job is gone.
    jobs.delete(jobs.cancel(jobs.submit(ScanWork(), JobOptions())[0].id).id)
    connection = open_database(tmp_path)
    again = Jobs(JobStore(connection, tmp_path), keep_s=3600)
    again.recover()
    with monkeypatch.context() as clock:
        clock.setattr(time, "time", lambda: before.create_time_s - 3600)
        after, _ = again.submit(ScanWork(), JobOptions())
    assert after.create_time_s < before.create_time_s
    assert [again.inherited(again.get(job.id)) for job in (before, after)] == [True, False]
    assert [job.id for job in again.page(JobFilter(), None, 10)[0]] == [after.id, before.id]
    connection.close()


def no_room(*_: object) -> None:
    raise ResourceExhausted("full", ErrorReason.STORAGE_FULL)


def test_an_end_that_found_no_room_is_stored_when_there_is_some(
    jobs: Jobs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = started(jobs)
    with monkeypatch.context() as disk:
        disk.setattr(JobStore, "record", no_room)
        jobs.record(job.id, Succeeded(result=ScanResult(report=ScanReport()), receipt=RECEIPT))
        jobs.store_ends()
    told = jobs.live(job.id).journal.after(0)[-1]
    assert isinstance(told.value, Failed)
    assert (told.value.failure.reason, told.value.failure.state_consistent) == (ErrorReason.STORAGE_FULL, False)
    assert [one.state for one in jobs.page(JobFilter(), None, 10)[0]] == [JobState.FAILED]
    jobs.store_ends()
    connection = open_database(tmp_path)
    again = Jobs(JobStore(connection, tmp_path), keep_s=3600)
    assert again.recover() == []
    assert again.get(job.id) == jobs.get(job.id)
    assert facts(again.live(job.id).journal.after(0)) == facts(jobs.live(job.id).journal.after(0))
    connection.close()


def test_an_end_that_found_no_room_is_stored_with_the_next_event_that_finds_some(
    jobs: Jobs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    job, other = started(jobs), started(jobs)
    with monkeypatch.context() as disk:
        disk.setattr(JobStore, "record", no_room)
        jobs.record(job.id, Succeeded(result=ScanResult(report=ScanReport()), receipt=RECEIPT))
    jobs.cancel(other.id)
    with closing(open_database(tmp_path)) as connection:
        assert Jobs(JobStore(connection, tmp_path), keep_s=3600).get(job.id).state is JobState.FAILED


async def test_what_has_expired_is_forgotten_although_it_went_wrong_at_first(
    jobs: Jobs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = [jobs.submit(ScanWork(), JobOptions(keep_for_s=1e-9))[0].id for _ in range(50)]
    for job_id in kept:
        jobs.cancel(job_id)
    connection = open_database(tmp_path)
    blobs = BlobStore(connection, tmp_path)
    done = asyncio.Event()

    async def collect() -> None:
        done.set()

    monkeypatch.setattr(blobs, "collect_in_portions", collect)
    with monkeypatch.context() as disk:
        tried = asyncio.Event()

        def delete(*_: object) -> None:
            tried.set()
            disk.undo()
            no_room()

        disk.setattr(JobStore, "delete", delete)
        expiry = asyncio.create_task(Expiry(jobs, blobs).keep_up(0.001))
        async with asyncio.timeout(10):
            await tried.wait()
            await done.wait()
    expiry.cancel()
    assert not any(job_id in jobs.ids() for job_id in kept)
    connection.close()


async def test_a_job_that_expires_takes_its_blobs_along(jobs: Jobs, tmp_path: Path) -> None:
    ended, kept = (jobs.submit(ScanWork(), JobOptions(keep_for_s=keep_s))[0].id for keep_s in (1e-9, 3600.0))
    for job_id in (ended, kept):
        jobs.cancel(job_id)
    with opened(tmp_path) as blobs:
        left = [await blobs.keep(data.encode(), "text/plain", data) for data in (ended, kept)]
        await Expiry(jobs, blobs).expire()
        assert [one.id for one in blobs.all()] == [left[1].id]
    assert [job_id in jobs.ids() for job_id in (ended, kept)] == [False, True]


async def test_expiry_looks_once_and_then_pauses_for_its_interval(
    jobs: Jobs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    connection = open_database(tmp_path)
    blobs, looks = BlobStore(connection, tmp_path), list[None]()

    async def collect() -> None:
        looks.append(None)

    monkeypatch.setattr(blobs, "collect_in_portions", collect)
    expiry = asyncio.create_task(Expiry(jobs, blobs).keep_up(3600))
    for _ in range(50):
        await asyncio.sleep(0)
    expiry.cancel()
    assert len(looks) == 1
    connection.close()


def test_a_cancellation_that_found_no_room_is_none(jobs: Jobs, monkeypatch: pytest.MonkeyPatch) -> None:
    job = started(jobs)
    with monkeypatch.context() as disk:
        disk.setattr(JobStore, "record", no_room)
        with pytest.raises(ResourceExhausted):
            jobs.cancel(job.id, "not needed")
    assert (jobs.get(job.id).state, jobs.live(job.id).stop) == (JobState.RUNNING, None)
    assert jobs.cancel(job.id).state is JobState.CANCELLING


def test_changed_options_are_stored_and_told_once(jobs: Jobs, tmp_path: Path) -> None:
    job, told = jobs.submit(ScanWork(), JobOptions(labels=(("a", "1"),)))[0], list[str]()
    jobs.on_options.append(lambda one: told.append(one.id))
    wanted = JobOptions(labels=(("b", "2"),))
    for _ in range(2):
        assert jobs.update(job.id, wanted, ["labels"]).options.labels == (("b", "2"),)
    assert told == [job.id]
    with closing(open_database(tmp_path)) as connection:
        again = Jobs(JobStore(connection, tmp_path), keep_s=3600)
        again.recover()
        assert again.get(job.id).options.labels == (("b", "2"),)
        for labels, found in (((("b", "2"),), [job.id]), ((("a", "1"),), [])):
            assert [one.id for one in again.page(JobFilter(labels=labels), None, 10)[0]] == found


def test_options_of_a_job_whose_end_found_no_room_are_stored_with_its_end(
    jobs: Jobs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = started(jobs)
    with monkeypatch.context() as disk:
        disk.setattr(JobStore, "record", no_room)
        jobs.record(job.id, Succeeded(result=ScanResult(report=ScanReport()), receipt=RECEIPT))
        jobs.update(job.id, JobOptions(labels=(("b", "2"),)), ["labels"])
    jobs.store_ends()
    with closing(open_database(tmp_path)) as connection:
        stored = Jobs(JobStore(connection, tmp_path), keep_s=3600).get(job.id)
        assert (stored.state, stored.options.labels) == (JobState.FAILED, (("b", "2"),))


@pytest.mark.parametrize("end", EVENTS[-3:], ids=lambda end: type(end).__name__)
def test_a_job_that_ended_has_the_result_of_its_end_or_what_it_had_made_before(jobs: Jobs, end: JobEvent) -> None:
    made = ScanResult(report=ScanReport(added=("one",)))
    asked = Generation(prompt="an owl")
    work = GenerateWork(asked=asked, resolved=resolve(asked, embedded_model()))
    job_id = jobs.submit(work, JobOptions())[0].id
    jobs.record(job_id, Started(device_id="cpu", attempt=1))
    jobs.record(job_id, OutputReady(image=PICTURE, total=2))
    jobs.record(job_id, msgspec.structs.replace(end, result=made) if isinstance(end, Succeeded) else end)
    result = jobs.get(job_id).result
    if isinstance(end, Succeeded):
        assert result == made
    else:
        assert isinstance(result, GenerationResult)
        assert result.images == (PICTURE,)


def test_only_the_jobs_that_ended_last_stay_in_memory(
    jobs: Jobs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(in_memory, "_ENDED_KEPT", 2)
    waiting, *ended = [jobs.submit(ScanWork(), JobOptions())[0].id for _ in range(5)]
    for job_id in ended:
        jobs.cancel(job_id)
    read, load = list[str](), JobStore.load

    def noted(store: JobStore, job_id: str) -> object:
        read.append(job_id)
        return load(store, job_id)

    monkeypatch.setattr(JobStore, "load", noted)
    assert [jobs.get(job_id).id for job_id in (waiting, *reversed(ended))] == [waiting, *reversed(ended)]
    assert read == [ended[1], ended[0]]


@pytest.mark.parametrize(
    ("state", "kept", "paused", "counts"),
    [
        (JobState.RUNNING, True, False, True),
        (JobState.RUNNING, False, False, False),
        (JobState.PAUSING, False, True, True),
        (JobState.CANCELLING, True, False, True),
        (JobState.QUEUED, False, True, False),
        (JobState.INTERRUPTED, False, True, False),
    ],
)
def test_the_time_of_an_attempt_counts_that_leaves_something(
    state: JobState, kept: bool, paused: bool, counts: bool
) -> None:
    checkpoint = Checkpoint(blob_id="b", sha256="0" * 64, size_bytes=1, step=1, time_s=1.0) if kept else None
    event = (
        Paused(stage=Stage.DENOISING, completed=1, checkpoint=checkpoint)
        if paused
        else Interrupted(reason=ErrorReason.DEVICE_LOST, message="unplugged", checkpoint=checkpoint)
    )
    job = msgspec.structs.replace(Jobs.draft(ScanWork(), JobOptions()), state=state, ran_s=5.0)
    for begun_s, passed_s in ((100.0, 7.0), (None, 0.0)):
        one = msgspec.structs.replace(job, attempt_time_s=begun_s)
        found = after(one, event, Entry[JobEvent](1, 107.0, event), JobState.PAUSED)
        assert (found.ran_s, found.checkpoint) == (5.0 + (passed_s if counts else 0.0), checkpoint)


@pytest.mark.parametrize(
    ("began_s", "ended_s", "queue_s", "run_s"),
    [(1010.0, 1015.0, 10.0, 5.0), (1010.0, 900.0, 10.0, 0.0), (900.0, 950.0, 0.0, 50.0)],
)
def test_a_receipt_has_no_negative_times_when_the_clock_was_set_back(
    began_s: float, ended_s: float, queue_s: float, run_s: float
) -> None:
    draft = Jobs.draft(ScanWork(), JobOptions())
    job = msgspec.structs.replace(draft, create_time_s=1000.0, start_time_s=began_s)
    told = receipt_of(job, Instant(ended_s, 0.0))
    assert (told.queue_s, told.run_s) == (queue_s, run_s)
    waited = msgspec.structs.replace(job, waited_s=7.0)
    assert receipt_of(waited, Instant.now()).queue_s == 7.0
    never = msgspec.structs.replace(draft, create_time_s=1000.0)
    assert receipt_of(never, Instant(1003.0, 0.0)).run_s == 0.0


def test_an_end_that_the_disk_refused_is_logged_published_and_stored_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with closing(open_database(tmp_path)) as database:
        store = JobStore(database, tmp_path)
        jobs = Jobs(store, keep_s=3600)
        job_id = jobs.submit(ScanWork(), JobOptions())[0].id
        jobs.record(job_id, Started(device_id="", attempt=1))
        record = store.record

        def refuse(*_: object) -> None:
            raise ResourceExhausted("the disk is full", ErrorReason.STORAGE_FULL)

        with capture_logs() as lines:
            monkeypatch.setattr(store, "record", refuse)
            end = Succeeded(result=ScanResult(report=ScanReport()), receipt=receipt_of(jobs.get(job_id), Instant.now()))
            failed = jobs.record(job_id, end)
            assert failed.failure is not None
            assert (failed.state, failed.failure.reason, failed.failure.state_consistent) == (
                JobState.FAILED,
                ErrorReason.STORAGE_FULL,
                False,
            )
            monkeypatch.setattr(store, "record", record)
            other = jobs.submit(ScanWork(), JobOptions())[0].id
            jobs.record(other, Started(device_id="", attempt=1))
        told = [line for line in lines if line["event"].startswith("the end of a job")]
        assert [(line["log_level"], line["event"], line["job_id"]) for line in told] == [
            ("error", "the end of a job could not be stored", job_id),
            ("info", "the end of a job is stored after all", job_id),
        ]
        assert told[0]["reason"] is ErrorReason.STORAGE_FULL
        with capture_logs() as lines:
            jobs.record(other, StageStarted(stage=Stage.SCANNING))
            jobs.store_ends()
        assert not [line for line in lines if line["event"].startswith("the end of a job")], "each is stored once"
        again = Jobs(JobStore(database, tmp_path), keep_s=3600)
        assert again.get(job_id).state is JobState.FAILED


def test_a_job_is_told_how_many_wait_before_it(tmp_path: Path) -> None:
    with closing(open_database(tmp_path)) as database:
        jobs = Jobs(JobStore(database, tmp_path), keep_s=3600)
        ids = [jobs.submit(ScanWork(), JobOptions())[0].id for _ in range(3)]
        jobs.record(ids[0], Started(device_id="", attempt=1))
        ids.append(jobs.submit(ScanWork(), JobOptions())[0].id)
        positions = [jobs.live(job_id).journal.after(0)[0].value for job_id in ids]
        assert [one.position for one in positions if isinstance(one, Queued)] == [0, 1, 2, 2]


def test_the_pictures_of_an_event_are_told_by_its_kind() -> None:
    resolved = resolve(Generation(prompt="an owl"), embedded_model())
    result = GenerationResult(images=(PICTURE,), resolved=resolved)
    cancelled = Cancelled(stage=Stage.QUEUED, latency_s=0.0, cause="", receipt=RECEIPT)
    failed = Failed(failure=Failure(reason=ErrorReason.DRIVER_ERROR, message="broken"), receipt=RECEIPT)
    for event in (
        OutputReady(image=PICTURE, total=1),
        Succeeded(result=result, receipt=RECEIPT),
        msgspec.structs.replace(cancelled, result=result),
        msgspec.structs.replace(failed, result=result),
    ):
        assert images_of(event) == (PICTURE,)
    for event in (EVENTS[5], cancelled, failed, Queued(position=1)):
        assert images_of(event) == ()
