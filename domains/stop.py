"""Requests to stop work before it is done."""

from enum import StrEnum

import msgspec

from domains.errors import ErrorReason


class StopKind(StrEnum):
    """How the job continues, from the weakest to the strongest."""

    PREEMPT = "preempt"
    """The job leaves its device, waits again and continues later."""
    PAUSE = "pause"
    """The job leaves its device and continues when it is resumed."""
    TIME_UP = "time_up"
    """The job's time is over: it fails."""
    CANCEL = "cancel"
    """The job is cancelled."""


class Origin(StrEnum):
    """The cause of a pause or of a resumption."""

    CALLER = "caller"
    """A call that names the job."""
    SESSION = "session"
    """A call that names the job's session."""
    PREEMPTION = "preemption"
    """The scheduler, for work of a higher priority."""


class Stop(msgspec.Struct, frozen=True, kw_only=True):
    """A request to stop. The worker echoes it in its `RunStopped`."""

    kind: StopKind
    cause: str = ""
    """For people: the caller's words for a cancellation, else the server's."""
    origin: Origin = Origin.CALLER
    """The origin of a pause."""
    reason: ErrorReason | None = None
    """Reason of the job's failure or interruption. None: a cancellation."""
    facts: dict[str, str] = {}
    """Each value that the cause names."""
    asked_s: float | None = None
    """Time of the request, on the front's `time.monotonic`. None: it came before the front was started."""

    @property
    def final(self) -> bool:
        """Whether the job ends, and does not continue later."""
        return self.kind not in (StopKind.PREEMPT, StopKind.PAUSE)


def stronger(one: Stop | None, other: Stop) -> Stop:
    """The request that decides how the job continues; of two of one kind, the first."""
    order = list(StopKind)
    return one if one is not None and order.index(one.kind) >= order.index(other.kind) else other


def never() -> bool:
    """Whether to stop, for work that runs to its end."""
    return False
