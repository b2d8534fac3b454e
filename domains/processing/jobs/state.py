"""The one state machine of every job.

QUEUED ──► RUNNING ──► SUCCEEDED | PARTIALLY_SUCCEEDED | FAILED
  │          │  ▲ ▲
  │          │  │ └── INTERRUPTED   (worker or server went away; runs again by itself)
  │          │  └──── PAUSING ─► PAUSED
  └──────────┴─► CANCELLING ─► CANCELLED
"""

from collections.abc import Mapping
from enum import StrEnum

from domains.errors import ErrorReason, FailedPrecondition


class JobState(StrEnum):
    """Where a job is in its life."""

    QUEUED = "queued"
    RUNNING = "running"
    PAUSING = "pausing"
    PAUSED = "paused"
    CANCELLING = "cancelling"
    SUCCEEDED = "succeeded"
    PARTIALLY_SUCCEEDED = "partially_succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"
    INTERRUPTED = "interrupted"

    @property
    def ended(self) -> bool:
        """Nothing more will come."""
        return not NEXT[self]


_ENDS = {JobState.SUCCEEDED, JobState.PARTIALLY_SUCCEEDED, JobState.FAILED, JobState.CANCELLED}

NEXT: Mapping[JobState, frozenset[JobState]] = {
    JobState.QUEUED: frozenset({JobState.RUNNING, JobState.PAUSED, JobState.CANCELLED, JobState.FAILED}),
    JobState.RUNNING: frozenset({JobState.PAUSING, JobState.CANCELLING, JobState.INTERRUPTED} | _ENDS),
    JobState.PAUSING: frozenset({JobState.PAUSED, JobState.CANCELLING, JobState.INTERRUPTED} | _ENDS),
    JobState.PAUSED: frozenset({JobState.QUEUED, JobState.RUNNING, JobState.CANCELLED, JobState.FAILED}),
    JobState.CANCELLING: frozenset(_ENDS),
    JobState.INTERRUPTED: frozenset({JobState.RUNNING, JobState.PAUSED, JobState.CANCELLED, JobState.FAILED}),
} | {end: frozenset[JobState]() for end in _ENDS}
"""What may follow each state."""


def check_move(job_id: str, present: JobState, wanted: JobState) -> None:
    """Refuse an illegal move with FAILED_PRECONDITION that names the present state."""
    if wanted not in NEXT[present]:
        raise FailedPrecondition(
            f"job {job_id} {_refusal(present, wanted)}",
            ErrorReason.ILLEGAL_STATE,
            job_id=job_id,
            state=present,
        )


def _refusal(present: JobState, wanted: JobState) -> str:
    if present.ended:
        return f"has already ended ({_word(present)})"
    return f"is {_word(present)} and cannot be {_ASKED.get(wanted, _word(wanted))}"


_ASKED = {
    JobState.CANCELLING: "cancelled",
    JobState.PAUSING: "paused",
    JobState.RUNNING: "started",
    JobState.QUEUED: "queued again",
}
"""What a caller asks for, by the state that it leads to."""


def _word(state: JobState) -> str:
    return state.replace("_", " ")


AT_REST = frozenset({JobState.QUEUED, JobState.PAUSED, JobState.INTERRUPTED})
"""No worker has anything of a job in these states, and the job has not ended."""
ON_A_LANE = frozenset({JobState.RUNNING, JobState.PAUSING, JobState.CANCELLING})
"""A job in these states runs, and holds what it needs."""
