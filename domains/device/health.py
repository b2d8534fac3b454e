"""Health of a device: checks and their verdicts. `on_device/health_check.py` runs them."""

from enum import StrEnum

import msgspec

from domains.errors import ErrorReason
from domains.measurement import Measurement


class HealthDepth(StrEnum):
    """How thorough a check is."""

    QUICK = "quick"
    """A small allocation, a copy and a computation whose result is compared."""
    FULL = "full"
    """QUICK, then patterns through the free memory and ten seconds of sustained computation."""


class Verdict(StrEnum):
    """Result of a check, in order of severity; `SKIPPED` does not count for the whole."""

    HEALTHY = "healthy"
    DEGRADED = "degraded"
    UNHEALTHY = "unhealthy"
    SKIPPED = "skipped"


class HealthCheck(msgspec.Struct, frozen=True, kw_only=True):
    """One check."""

    name: str
    """`telemetry`, `queue`, `allocate`, `copy`, `compute`, `verify`, `memory_patterns`, `sustained_compute`."""
    verdict: Verdict
    message: str
    """For people: what was found, and what was expected."""
    duration_s: float = 0.0
    measurements: tuple[Measurement, ...] = ()
    failure_reason: ErrorReason | None = None
    """The error that ended the check; `message` explains it."""


class HealthReport(msgspec.Struct, frozen=True, kw_only=True):
    """Results of all checks."""

    device_id: str
    checks: tuple[HealthCheck, ...]
    """In the order in which they ran."""
    check_time_s: float
    """Unix time of the start."""
    queue_s: float
    """Time in the device's queue."""
    duration_s: float
    """Total time of the checks."""
    recommendations: tuple[str, ...] = ()

    @property
    def verdict(self) -> Verdict:
        """The worst verdict, without skipped checks. SKIPPED: no check ran."""
        said = [check.verdict for check in self.checks if check.verdict is not Verdict.SKIPPED]
        return max(said, key=list(Verdict).index, default=Verdict.SKIPPED)
