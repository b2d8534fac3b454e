"""The results of a run: loaded models, pictures and last reports, which the step loop adds to `domains.progress`.

Exactly one `RunFinished`, `RunFailed` or `RunStopped` comes, as the last report of a job.
"""

import msgspec

from domains.inference.details import Detailed
from domains.model.loaded import LoadedComponent, LoadedModel
from domains.progress import Degraded, PreviewReady, Progressed, Receipt, Stage, StageStarted
from domains.stop import Stop


class ImageReady(msgspec.Struct, frozen=True, kw_only=True, tag="image"):
    """One picture is encoded."""

    index: int
    """0-based place in the request's `seeds`; pictures come in this order."""
    seed: int
    media_type: str
    width_px: int
    height_px: int
    data: bytes
    """The encoded file, with its manifest if one was requested."""
    details: tuple[Detailed, ...] = ()
    """What detail passes have found in it, in the order of their work: the first ones."""


class LatentsReady(msgspec.Struct, frozen=True, kw_only=True, tag="latents"):
    """The latents of one picture, as they are after its first pass. Comes before its `ImageReady`."""

    index: int
    shape: tuple[int, int, int]
    """(channels, height, width)."""
    completed_steps: int
    """Steps of the walk that are done; fewer than it has: they still hold noise."""
    data: bytes
    """A safetensors file, see `domains.inference.latents`."""


class CheckpointReady(msgspec.Struct, frozen=True, kw_only=True, tag="checkpoint"):
    """The progress of a run that was asked to pause. Comes directly before its `RunStopped`."""

    step: int
    """Number of denoising steps that are done."""
    data: bytes
    """A safetensors file, see `domains.inference.on_device.checkpoint`."""


class ModelLoaded(msgspec.Struct, frozen=True, kw_only=True, tag="model_loaded"):
    """A model is on the device now."""

    loaded: LoadedModel


class ModelPlacing(msgspec.Struct, frozen=True, kw_only=True, tag="model_placing"):
    """A model is on its way to the device."""

    model_id: str
    components: tuple[LoadedComponent, ...]
    """Bytes on the device so far; components that were there before the load are left out."""


class ModelUnloaded(msgspec.Struct, frozen=True, kw_only=True, tag="model_unloaded"):
    """A model is no longer on the device."""

    model_id: str
    freed_bytes: int | None
    """Bytes that the allocator gave back; absent where they cannot be measured."""


class RunFinished(msgspec.Struct, frozen=True, kw_only=True, tag="finished"):
    """Every picture was reported."""

    receipt: Receipt


class RunFailed(msgspec.Struct, frozen=True, kw_only=True, tag="failed"):
    """The work ended with an error."""

    reason: str
    """An `ErrorReason`."""
    message: str
    """For people, in the server's words: never the text of an unexpected exception."""
    facts: dict[str, str]
    """Each value that the message names."""
    receipt: Receipt


class RunStopped(msgspec.Struct, frozen=True, kw_only=True, tag="stopped"):
    """The work stopped on request; the fields prove it."""

    stop: Stop
    """The request, as received."""
    stage: Stage
    """The stage at the stop: no work of a later stage was done."""
    latency_s: float
    """Seconds from the worker's receipt of the request to the end of the job's last operation."""
    freed_bytes: int | None = None
    """Bytes of the job's tensors: the allocator's difference on CUDA, the sum of sizes on a CPU; absent if unknown."""
    receipt: Receipt


Report = (
    StageStarted
    | Progressed
    | PreviewReady
    | Degraded
    | ModelPlacing
    | ModelLoaded
    | ModelUnloaded
    | LatentsReady
    | ImageReady
    | CheckpointReady
    | RunFinished
    | RunFailed
    | RunStopped
)
"""All reports of a step loop on a job."""
