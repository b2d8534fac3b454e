"""How an attempt ends is one function of the job, the strongest request to stop and what was left of the work."""

import itertools

import msgspec
import pytest

from domains.errors import ErrorReason
from domains.failure import Failure
from domains.inference.outcome import RunStopped
from domains.model.scan import ScanReport
from domains.processing.jobs.ending import end_of
from domains.processing.jobs.event import STATE_AFTER, Cancelled, Checkpoint, Failed, Interrupted, Paused, ScanResult
from domains.processing.jobs.instant import Instant
from domains.processing.jobs.job import Job, JobOptions
from domains.processing.jobs.jobs import Jobs
from domains.processing.jobs.kinds import ScanWork
from domains.processing.jobs.outcome import Broken, Done, Halted, Outcome, WorkerDeath
from domains.processing.jobs.state import NEXT, JobState
from domains.progress import Receipt, Stage
from domains.stop import Stop, StopKind, stronger

NOW = Instant(unix_s=1000.0, monotonic_s=100.0)
RESULT = ScanResult(report=ScanReport())
CANCEL = Stop(kind=StopKind.CANCEL, cause="not needed", asked_s=97.5)
TIME_UP = Stop(kind=StopKind.TIME_UP, cause="too long", reason=ErrorReason.RUN_TIMEOUT, facts={"run_timeout_s": "1"})
PREEMPT = Stop(kind=StopKind.PREEMPT, cause="memory", reason=ErrorReason.PREEMPTED)
PAUSE = Stop(kind=StopKind.PAUSE, cause="later")
STOPS = (None, PREEMPT, PAUSE, TIME_UP, CANCEL)
PROOF = RunStopped(
    stop=PREEMPT, stage=Stage.DENOISING, latency_s=0.25, freed_bytes=7, receipt=Receipt(steps_executed=3)
)
DEATH = WorkerDeath(device_id="sim-0", message="it died", meant=False, lost=False, alone=True)
LEFT: tuple[Outcome, ...] = (
    Done(result=RESULT),
    Broken(failure=Failure(reason=ErrorReason.DRIVER_ERROR, message="broken")),
    Halted(proof=PROOF),
    Halted(),
    DEATH,
)


def running(state: JobState = JobState.RUNNING, crashes: int = 0) -> Job:
    job = Jobs.draft(ScanWork(), JobOptions())
    return msgspec.structs.replace(job, state=state, start_time_s=990.0, attempt=1, crashes=crashes, result=RESULT)


POSSIBLE = [pair for pair in itertools.product(STOPS, LEFT) if pair != (None, Halted())]
"""Work that no worker has heard of is stopped by the front alone, with a request."""


@pytest.mark.parametrize(("stop", "left"), POSSIBLE)
def test_every_stop_and_everything_left_have_an_end_that_the_job_may_come_to(stop: Stop | None, left: Outcome) -> None:
    states = {StopKind.CANCEL: JobState.CANCELLING, StopKind.PAUSE: JobState.PAUSING}
    state = states.get(stop.kind, JobState.RUNNING) if stop else JobState.RUNNING
    end = end_of(running(state), stop, left, NOW)
    assert STATE_AFTER[type(end)] in NEXT[state]


def test_work_that_was_done_or_broke_by_itself_is_told_as_that_whatever_was_asked() -> None:
    for stop in STOPS:
        assert [STATE_AFTER[type(end_of(running(), stop, left, NOW))] for left in LEFT[:2]] == [
            JobState.SUCCEEDED,
            JobState.FAILED,
        ]


def test_a_cancellation_is_proven_with_the_workers_figures_and_keeps_what_was_made() -> None:
    end = end_of(running(JobState.CANCELLING), CANCEL, Halted(proof=PROOF), NOW)
    assert isinstance(end, Cancelled)
    assert (end.stage, end.latency_s, end.freed_bytes) == (Stage.DENOISING, 2.5, 7)
    assert (end.receipt.work, end.receipt.run_s, end.cause, end.result) == (PROOF.receipt, 10.0, "not needed", RESULT)


@pytest.mark.parametrize(
    ("asked_s", "left", "latency_s"),
    [(97.5, Halted(), 2.5), (97.5, Halted(proof=PROOF), 2.5), (None, Halted(proof=PROOF), 0.25), (None, Halted(), 0.0)],
)
def test_a_stop_took_the_time_since_its_request_or_what_the_worker_measured(
    asked_s: float | None, left: Halted, latency_s: float
) -> None:
    stop = msgspec.structs.replace(CANCEL, asked_s=asked_s)
    end = end_of(running(JobState.CANCELLING), stop, left, NOW)
    assert isinstance(end, Cancelled)
    assert end.latency_s == latency_s


def test_the_worker_that_obeyed_a_weaker_request_is_the_proof_of_the_stronger_one() -> None:
    end = end_of(running(), TIME_UP, Halted(proof=PROOF), NOW)
    assert isinstance(end, Failed)
    assert (end.failure.reason, end.failure.actions_taken) == (ErrorReason.RUN_TIMEOUT, ("stopped",))


def test_a_preempted_job_goes_on_later() -> None:
    end = end_of(running(), PREEMPT, Halted(proof=PROOF), NOW)
    assert end == Interrupted(reason=ErrorReason.PREEMPTED, message="memory", work=PROOF.receipt)
    # What the worker echoes decides where the front has no request any more.
    assert end_of(running(), None, Halted(proof=PROOF), NOW) == end


def test_a_paused_job_keeps_its_checkpoint_or_that_of_an_earlier_attempt() -> None:
    first, second = (Checkpoint(blob_id=f"b{step}", sha256="", size_bytes=1, step=step, time_s=0.0) for step in (3, 7))
    job = msgspec.structs.replace(running(JobState.PAUSING), checkpoint=first)
    end = end_of(job, PAUSE, Halted(proof=PROOF, checkpoint=second), NOW)
    assert end == Paused(stage=Stage.DENOISING, completed=7, cause="later", checkpoint=second, work=PROOF.receipt)
    again = end_of(job, PAUSE, Halted(proof=PROOF), NOW)
    assert isinstance(again, Paused)
    assert (again.completed, again.checkpoint) == (3, None)


@pytest.mark.parametrize(
    ("stop", "state"), [(None, "interrupted"), (PREEMPT, "interrupted"), (PAUSE, "paused"), (TIME_UP, "failed")]
)
def test_a_worker_that_dies_obeys_a_final_request_and_else_counts_as_a_crash(stop: Stop | None, state: str) -> None:
    end = end_of(running(), stop, DEATH, NOW)
    assert STATE_AFTER[type(end)] == state
    assert not isinstance(end, Interrupted) or end.crashed


@pytest.mark.parametrize(("one", "other"), list(itertools.product(STOPS[1:], repeat=2)))
def test_the_stronger_of_two_requests_counts_and_of_equal_ones_the_first(one: Stop, other: Stop) -> None:
    assert stronger(None, one) is one
    expected = one if STOPS.index(one) >= STOPS.index(other) else other
    assert stronger(one, other) is expected


@pytest.mark.parametrize(
    ("meant", "lost", "alone", "counted"),
    [
        (False, False, True, True),
        (False, False, False, False),
        (True, False, True, False),
        (False, True, True, False),
        (True, False, False, False),
    ],
)
def test_only_an_unexpected_death_of_a_job_that_ran_alone_counts(
    meant: bool, lost: bool, alone: bool, counted: bool
) -> None:
    death = msgspec.structs.replace(DEATH, meant=meant, lost=lost, alone=alone)
    end = end_of(running(), None, death, NOW)
    assert isinstance(end, Interrupted)
    assert end.alone is counted
    assert end.crashed is not (meant or lost)
    assert end.reason is (ErrorReason.DEVICE_LOST if lost else ErrorReason.WORKER_RESTARTING)
    last = end_of(running(crashes=2), None, death, NOW)
    assert isinstance(last, Failed) is counted
    third = end_of(running(crashes=3), None, death, NOW)
    assert isinstance(third, Failed) is not (meant or lost)
