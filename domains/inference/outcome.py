"""How a generation ends, and the pictures it gives: what the step loop reports beside `domains.progress`.

`RunFinished`, `RunFailed` or `RunStopped` is the last report of a job, and comes once.
"""

import msgspec

from domains.progress import Degraded, PreviewReady, Progressed, Receipt, Stage, StageStarted
from domains.stop import Stop


class ImageReady(msgspec.Struct, frozen=True, kw_only=True, tag="image"):
    """One picture is done, as the file that was asked for."""

    index: int
    """0-based place in the request's `seeds`; pictures come in this order."""
    seed: int
    media_type: str
    width_px: int
    height_px: int
    data: bytes
    """The encoded file, with its manifest inside if that was asked for."""


class RunFinished(msgspec.Struct, frozen=True, kw_only=True, tag="finished"):
    """Every picture was reported."""

    receipt: Receipt


class RunFailed(msgspec.Struct, frozen=True, kw_only=True, tag="failed"):
    """The work ended with an error."""

    reason: str
    """An `ErrorReason`."""
    message: str
    """For people. Ours: never the text of an unexpected exception."""
    facts: dict[str, str]
    """Each value that the message names."""
    receipt: Receipt


class RunStopped(msgspec.Struct, frozen=True, kw_only=True, tag="stopped"):
    """The work ended because it was asked to; the proof that it did."""

    stop: Stop
    """The request, as it came."""
    stage: Stage
    """The stage it had reached: it did nothing of the next."""
    latency_s: float
    """From the request, as the worker saw it, to the end of the job's last operation."""
    freed_bytes: int | None = None
    """What its tensors held: the allocator's difference on CUDA, the sum of their sizes on a CPU; absent if unknown."""
    receipt: Receipt


Report = StageStarted | Progressed | PreviewReady | Degraded | ImageReady | RunFinished | RunFailed | RunStopped
"""All that a step loop reports of a job."""
