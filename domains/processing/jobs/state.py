"""The state machine of every job. The contract has more states; each is added with the feature that reaches it.

QUEUED ──► RUNNING ──► SUCCEEDED | FAILED
  │          │  ▲
  │          │  └── INTERRUPTED   (its worker or the server went away, or its memory was needed; it runs again by itself)
  │          ├────► PAUSING ─► PAUSED ─► QUEUED   (PAUSED also from QUEUED and INTERRUPTED, at once)
  │          ▼
  └──► CANCELLING ─► CANCELLED
"""

from collections.abc import Mapping
from enum import StrEnum

from domains.errors import ErrorReason, FailedPrecondition


class JobState(StrEnum):
    """The state of a job."""

    QUEUED = "queued"
    RUNNING = "running"
    PAUSING = "pausing"
    PAUSED = "paused"
    CANCELLING = "cancelling"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"
    INTERRUPTED = "interrupted"

    @property
    def ended(self) -> bool:
        """Whether no further event can come."""
        return not NEXT[self]


_ENDS = {JobState.SUCCEEDED, JobState.FAILED, JobState.CANCELLED}

NEXT: Mapping[JobState, frozenset[JobState]] = {
    JobState.QUEUED: frozenset({JobState.RUNNING, JobState.PAUSED, JobState.CANCELLED, JobState.FAILED}),
    JobState.RUNNING: frozenset({JobState.CANCELLING, JobState.PAUSING, JobState.INTERRUPTED} | _ENDS),
    JobState.PAUSING: frozenset({JobState.PAUSED, JobState.CANCELLING} | _ENDS),
    JobState.PAUSED: frozenset({JobState.QUEUED, JobState.CANCELLED, JobState.FAILED}),
    JobState.CANCELLING: frozenset(_ENDS),
    JobState.INTERRUPTED: frozenset({JobState.RUNNING, JobState.PAUSED, JobState.CANCELLED, JobState.FAILED}),
} | {end: frozenset[JobState]() for end in _ENDS}
"""Allowed next states of each state."""


def check_move(job_id: str, present: JobState, wanted: JobState) -> None:
    """Raise FAILED_PRECONDITION, which names the present state, for an illegal move."""
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
    JobState.RUNNING: "started",
    JobState.PAUSING: "paused",
    JobState.PAUSED: "paused",
    JobState.QUEUED: "resumed",
}
"""Participle of the caller's request, by the state that the request leads to."""


def _word(state: JobState) -> str:
    return state.replace("_", " ")


WAITING = frozenset({JobState.QUEUED, JobState.INTERRUPTED})
"""States in which a job waits for its turn."""
AT_REST = WAITING | {JobState.PAUSED}
"""States in which no worker has the job and the job has not ended."""
ON_A_LANE = frozenset({JobState.RUNNING, JobState.PAUSING, JobState.CANCELLING})
"""States in which a job runs and holds its memory."""
