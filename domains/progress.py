"""What running work tells while it runs: the values that a worker sends and a journal keeps.

A leaf, so that loading (model), generating (inference) and everything later speak with the same words.
"""

from enum import StrEnum

import msgspec


class Stage(StrEnum):
    """Where a job is. Stable names: clients show and compare them."""

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
    """What `Progressed.completed` counts."""

    STEPS = "steps"
    BYTES = "bytes"
    IMAGES = "images"
    FILES = "files"


class StageStarted(msgspec.Struct, frozen=True, kw_only=True, tag="stage"):
    """The work entered a stage."""

    stage: Stage


class Progressed(msgspec.Struct, frozen=True, kw_only=True, tag="progress"):
    """The work moved on within a stage. Only the newest is kept for a reader who is late."""

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
    """The work goes on with less than was asked for, and says so."""

    kind: str
    """What was given up, in lower_snake_case: `vae_tiling`, `smaller_batch`."""
    reason: str
    """The `ErrorReason` that made it necessary."""
    detail: str
    field: str = ""
    """Path of the request's field that it concerns; empty: none."""


class StageTiming(msgspec.Struct, frozen=True, kw_only=True):
    """How long one stage took, all images together."""

    stage: Stage
    wall_s: float
    device_s: float | None = None
    """Time the device was busy with it; absent where it cannot be measured."""


class Receipt(msgspec.Struct, frozen=True, kw_only=True):
    """What the work cost, measured. Every terminal event carries one."""

    timings: tuple[StageTiming, ...] = ()
    peak_device_bytes: int | None = None
    """Allocator's high-water mark during this work; absent on a CPU, where tensors share the process heap."""
    peak_host_bytes: int | None = None
    """Highest resident set of the worker process seen so far (getrusage); absent where the system cannot tell."""
    steps_executed: int = 0
    cache_hits: int = 0
    """Prompt encodings that were taken from the cache."""
    degradations: tuple[Degraded, ...] = ()
