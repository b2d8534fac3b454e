"""Why work is asked to stop before it is done."""

from enum import StrEnum

import msgspec

from domains.errors import ErrorReason


class StopKind(StrEnum):
    """What becomes of the job, from the weakest to the strongest."""

    PREEMPT = "preempt"
    """It leaves its device, waits again and goes on later."""
    TIME_UP = "time_up"
    """It has had all the time that it was given: it fails."""
    CANCEL = "cancel"
    """It is not wanted any more: it is cancelled."""


class Stop(msgspec.Struct, frozen=True, kw_only=True):
    """A request to stop. The worker echoes it in its `Stopped`."""

    kind: StopKind
    cause: str = ""
    """For people: the caller's words for a cancellation, else the server's."""
    reason: ErrorReason | None = None
    """What the job's failure or interruption names. None: a cancellation."""
    facts: dict[str, str] = {}
    """Each value that the cause names."""
    asked_s: float | None = None
    """When it was asked, on the front's `time.monotonic`. None: before the front was started."""

    @property
    def final(self) -> bool:
        """Whether the job does not go on later."""
        return self.kind is not StopKind.PREEMPT


def stronger(one: Stop | None, other: Stop) -> Stop:
    """The one that decides what becomes of the job; of two of one kind, the first."""
    order = list(StopKind)
    return one if one is not None and order.index(one.kind) >= order.index(other.kind) else other
