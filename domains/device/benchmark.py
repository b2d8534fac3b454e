"""Figures of a device, as `on_device/benchmark` measures them."""

from enum import StrEnum

import msgspec

from domains.measurement import Measurement


class Suite(StrEnum):
    """What is measured."""

    MEMORY = "memory"
    TRANSFER = "transfer"
    COMPUTE = "compute"
    INFERENCE = "inference"
    STABILITY = "stability"


class BenchmarkResult(msgspec.Struct, frozen=True, kw_only=True):
    """One figure."""

    suite: Suite
    median: Measurement
    samples: tuple[float, ...]
    """In the median's unit, in the order taken, the warm-up left out; at most 1000, evenly thinned."""
    sample_count: int
    """How many were taken."""
    workload: str
    """The input: shapes and precision, `4096x4096x4096 float16`."""


class BenchmarkReport(msgspec.Struct, frozen=True, kw_only=True):
    """All figures of one run."""

    device_id: str
    results: tuple[BenchmarkResult, ...]
    warnings: tuple[str, ...]
    """What makes them less sure, or is missing."""
    libraries: tuple[str, ...]
    start_time_s: float
    duration_s: float
