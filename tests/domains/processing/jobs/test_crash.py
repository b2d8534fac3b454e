"""How a job goes on after its worker died: a death counts against it only while it ran alone."""

from typing import Any

import pytest
from msgspec.structs import replace

from domains.errors import ErrorReason
from domains.processing.jobs.crash import after_death
from domains.processing.jobs.event import Failed, Interrupted
from domains.processing.jobs.instant import Instant
from domains.processing.jobs.job import JobOptions
from domains.processing.jobs.jobs import Jobs
from domains.processing.jobs.kinds import ScanWork
from domains.processing.jobs.outcome import WorkerDeath

DEATH = WorkerDeath(device_id="sim-0", message="signal 9", meant=False, lost=False, alone=True)
NOW = Instant(1000.0, 10.0)


@pytest.mark.parametrize(
    ("crashes", "death", "reason", "crashed", "alone"),
    [
        (0, {}, ErrorReason.WORKER_RESTARTING, True, True),
        (1, {}, ErrorReason.WORKER_RESTARTING, True, True),
        (2, {"alone": False}, ErrorReason.WORKER_RESTARTING, True, False),
        (2, {"meant": True}, ErrorReason.WORKER_RESTARTING, False, False),
        (2, {"lost": True}, ErrorReason.DEVICE_LOST, False, False),
        (9, {"meant": True}, ErrorReason.WORKER_RESTARTING, False, False),
    ],
)
def test_a_job_runs_again_after_a_death_that_is_not_its_third_alone(
    crashes: int, death: dict[str, Any], reason: ErrorReason, crashed: bool, alone: bool
) -> None:
    job = replace(Jobs.draft(ScanWork(), JobOptions()), crashes=crashes)
    event = after_death(job, replace(DEATH, **death), NOW)
    assert event == Interrupted(reason=reason, message="signal 9", crashed=crashed, alone=alone)


@pytest.mark.parametrize(("crashes", "alone"), [(2, True), (3, True), (3, False)])
def test_the_third_death_of_a_job_alone_is_its_end(crashes: int, alone: bool) -> None:
    job = replace(Jobs.draft(ScanWork(), JobOptions()), crashes=crashes, attempt=5)
    event = after_death(job, replace(DEATH, alone=alone), NOW)
    assert isinstance(event, Failed)
    times = crashes + alone
    assert event.failure.message == (
        f"its worker process died {times} times while running this job and nothing else: signal 9"
    )
    assert (event.failure.reason, event.failure.root_cause) == (ErrorReason.DEVICE_LOST, ErrorReason.DRIVER_ERROR)
    assert event.failure.facts == {"attempts": str(times), "device_id": "sim-0"}
    assert event.failure.actions_taken == (f"run again, {times - 1} times alone", "worker restarted")
    assert (event.failure.retryable, event.receipt.attempts) == (False, 5)
