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
    ENCODING_INPUT = "encoding_input"
    COMPILING = "compiling"
    """Before a step whose shapes are new to a denoiser that is loaded to be compiled."""
    DENOISING = "denoising"
    REFINING = "refining"
    """Denoising of the last steps by a refiner."""
    ENLARGING = "enlarging"
    HIRES = "hires"
    """Denoising of the enlarged picture."""
    DECODING = "decoding"
    DETECTING = "detecting"
    """Detectors look at the decoded pictures."""
    DETAILING = "detailing"
    """Denoising of what they have found."""
    ENCODING = "encoding"
    SCANNING = "scanning"
    MEASURING = "measuring"
    DRAINING = "draining"
    RESETTING = "resetting"
    COPYING = "copying"
    VERIFYING = "verifying"
    CONVERTING = "converting"


STEPPING = (Stage.DENOISING, Stage.REFINING, Stage.HIRES, Stage.DETAILING)
"""Stages of denoising steps, one for each kind of pass of a generation."""

ONCE = (Stage.LOADING, Stage.COMPILING)
"""Stages whose result the next job on the same model finds."""


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


def added(one: Receipt, other: Receipt) -> Receipt:
    """The cost of two attempts at one piece of work, the earlier first."""
    if other == _NOTHING or one == _NOTHING:
        return other if one == _NOTHING else one
    stages = {timing.stage: timing for timing in one.timings}
    for timing in other.timings:
        stages[timing.stage] = _longer(stages.get(timing.stage), timing)
    return Receipt(
        timings=tuple(stages.values()),
        peak_device_bytes=_larger(one.peak_device_bytes, other.peak_device_bytes),
        peak_host_bytes=_larger(one.peak_host_bytes, other.peak_host_bytes),
        steps_executed=one.steps_executed + other.steps_executed,
        cache_hits=one.cache_hits + other.cache_hits,
        degradations=one.degradations + other.degradations,
    )


_NOTHING = Receipt()


def _longer(before: StageTiming | None, timing: StageTiming) -> StageTiming:
    if before is None:
        return timing
    measured = [each for each in (before.device_s, timing.device_s) if each is not None]
    return StageTiming(
        stage=timing.stage, wall_s=before.wall_s + timing.wall_s, device_s=sum(measured) if measured else None
    )


def _larger(one: int | None, other: int | None) -> int | None:
    return max((each for each in (one, other) if each is not None), default=None)
