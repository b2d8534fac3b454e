"""Measurements, with name and unit."""

import math
from collections.abc import Sequence
from typing import Self

import msgspec


class Measurement(msgspec.Struct, frozen=True, kw_only=True):
    """One measured value."""

    name: str
    """In lower_snake_case: `copy_host_to_device`."""
    value: float
    unit: str
    """In UCUM notation: `By/s`, `s`, `Cel`, `1`."""


class LatencySummary(msgspec.Struct, frozen=True, kw_only=True):
    """Latencies of one kind of operation, in seconds. A percentile is absent if there are too few samples."""

    sample_count: int
    mean_s: float
    shortest_s: float
    p50_s: float
    p95_s: float | None
    """Absent below 20 samples."""
    p99_s: float | None
    """Absent below 100 samples."""
    longest_s: float

    @classmethod
    def of(cls, samples_s: Sequence[float]) -> Self | None:
        """Summarise samples. None: there are none."""
        if not samples_s:
            return None
        ordered = sorted(samples_s)

        def rank(share: float) -> float:
            return ordered[math.ceil(share * len(ordered)) - 1]

        return cls(
            sample_count=len(ordered),
            mean_s=math.fsum(ordered) / len(ordered),
            shortest_s=ordered[0],
            p50_s=rank(0.50),
            p95_s=rank(0.95) if len(ordered) >= 20 else None,
            p99_s=rank(0.99) if len(ordered) >= 100 else None,
            longest_s=ordered[-1],
        )
