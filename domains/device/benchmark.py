"""Results of a device benchmark. `on_device/benchmark` measures them."""

from enum import StrEnum

import msgspec

from domains.measurement import Measurement


class Suite(StrEnum):
    """A group of figures."""

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
    """In the median's unit, in the order measured, without the warm-up; at most 1000, evenly thinned."""
    sample_count: int
    """Number of samples before thinning."""
    workload: str
    """The input: shapes and precision, `4096x4096x4096 float16`."""


class BenchmarkReport(msgspec.Struct, frozen=True, kw_only=True):
    """All figures of one benchmark."""

    device_id: str
    results: tuple[BenchmarkResult, ...]
    warnings: tuple[str, ...]
    """Reasons why figures are less reliable, or missing."""
    libraries: tuple[str, ...]
    device_name: str
    driver_version: str
    start_time_s: float
    duration_s: float


STEP = "denoising_step"
"""Name of the figure of a denoising step, before its precision."""


def step_s(report: BenchmarkReport) -> float | None:
    """Shortest median time of a step over all precisions, in seconds. None: the report has none."""
    medians = (one.median for one in report.results if one.suite is Suite.INFERENCE)
    return min((median.value for median in medians if median.name.startswith(STEP)), default=None)


def relative_speed(report: BenchmarkReport, cpu_reference_s: float) -> float | None:
    """Speed of a step relative to this host's CPU, which is 1.0. `cpu_reference_s`: `step_s` measured on that CPU.

    The network is small, so a fast device spends part of the step on kernel launches: a large model gains more.
    None: the report has no such figure.
    """
    own = step_s(report)
    return None if own is None else cpu_reference_s / own
