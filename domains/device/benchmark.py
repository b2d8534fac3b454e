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
    device_name: str
    driver_version: str
    start_time_s: float
    duration_s: float


STEP = "denoising_step"
"""What the figure of a denoising step is called, before its precision."""


def step_s(report: BenchmarkReport) -> float | None:
    """The shortest median of a step, whichever the precision. None: the suite has no result."""
    medians = (one.median for one in report.results if one.suite is Suite.INFERENCE)
    return min((median.value for median in medians if median.name.startswith(STEP)), default=None)


def relative_speed(report: BenchmarkReport, cpu_reference_s: float) -> float | None:
    """Speed of a step against this host's CPU, 1.0. `cpu_reference_s`: `step_s` of a report measured there.

    The network is small, so a fast device spends part of the step on starting its kernels: a large model gains more.
    None: the report has no such figure.
    """
    own = step_s(report)
    return None if own is None else cpu_reference_s / own
