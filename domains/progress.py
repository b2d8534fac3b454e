"""Progress of running work: the values that a worker sends and a journal keeps.

A leaf, so that loading (model), generating (inference) and later kinds of work use the same terms.
"""

from enum import StrEnum

import msgspec


class Stage(StrEnum):
    """Stage of a job. Stable names: clients show and compare them."""

    QUEUED = "queued"
    LOADING = "loading"
    CONDITIONING = "conditioning"
    DENOISING = "denoising"
    DECODING = "decoding"
    ENCODING = "encoding"
    SCANNING = "scanning"
    MEASURING = "measuring"
    DRAINING = "draining"
    RESETTING = "resetting"
    COPYING = "copying"
    VERIFYING = "verifying"


class Unit(StrEnum):
    """The unit of `Progressed.completed`."""

    STEPS = "steps"
    BYTES = "bytes"
    IMAGES = "images"
    FILES = "files"


class StageStarted(msgspec.Struct, frozen=True, kw_only=True, tag="stage"):
    """The work entered a stage."""

    stage: Stage


class Progressed(msgspec.Struct, frozen=True, kw_only=True, tag="progress"):
    """The work advanced within a stage. Only the newest is kept for a late reader."""

    stage: Stage
    completed: int
    total: int
    """0: not known."""
    unit: Unit


class PreviewReady(msgspec.Struct, frozen=True, kw_only=True, tag="preview"):
    """A small picture of what the result will be (the x0 estimate). Only the newest is kept."""

    image_index: int
    step: int
    """The step after which it was taken, from 1."""
    media_type: str
    width_px: int
    height_px: int
    data: bytes
    """The encoded file, at most 256 KiB."""


class Degraded(msgspec.Struct, frozen=True, kw_only=True, tag="degraded"):
    """The work continues with less than was requested."""

    kind: str
    """The reduction, in lower_snake_case: `vae_tiling`, `smaller_batch`."""
    reason: str
    """The `ErrorReason` that made it necessary."""
    detail: str
    field: str = ""
    """Path of the request's field that is affected; empty: none."""


class StageTiming(msgspec.Struct, frozen=True, kw_only=True):
    """Duration of one stage, all images together."""

    stage: Stage
    wall_s: float
    device_s: float | None = None
    """Seconds that the device was busy with it; absent where they cannot be measured."""


class Receipt(msgspec.Struct, frozen=True, kw_only=True):
    """The measured cost of the work. Every terminal event carries one."""

    timings: tuple[StageTiming, ...] = ()
    peak_device_bytes: int | None = None
    """Allocator's high-water mark during this work; absent on a CPU, where tensors share the process heap."""
    peak_host_bytes: int | None = None
    """Highest resident set of the worker process so far (getrusage); absent where the system cannot measure it."""
    steps_executed: int = 0
    cache_hits: int = 0
    """Prompt encodings that came from the cache."""
    degradations: tuple[Degraded, ...] = ()
