"""Health of a device: what a check tries and what it says. The trying itself is `on_device/health_check.py`."""

from enum import StrEnum

import msgspec

from domains.errors import ErrorReason
from domains.measurement import Measurement


class HealthDepth(StrEnum):
    """How hard to look."""

    QUICK = "quick"
    """A small allocation, copy and computation whose result is compared."""
    FULL = "full"
    """QUICK, then patterns through the free memory and ten seconds of sustained computation."""


class Verdict(StrEnum):
    """What a check says. In the order of how bad it is; `SKIPPED` says nothing about the whole."""

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
    """For people: what was found, and against what it was held."""
    duration_s: float = 0.0
    measurements: tuple[Measurement, ...] = ()
    failure_reason: ErrorReason | None = None
    """The error that ended the check; `message` says more."""


class HealthReport(msgspec.Struct, frozen=True, kw_only=True):
    """What all checks found."""

    device_id: str
    checks: tuple[HealthCheck, ...]
    """In the order in which they ran."""
    check_time_s: float
    """Unix time at which it began."""
    queue_s: float
    """Time in the device's queue."""
    duration_s: float
    """Time that the checks took together."""
    recommendations: tuple[str, ...] = ()

    @property
    def verdict(self) -> Verdict:
        """The worst of the checks, skipped ones aside; nothing was tried: SKIPPED."""
        said = [check.verdict for check in self.checks if check.verdict is not Verdict.SKIPPED]
        return max(said, key=list(Verdict).index, default=Verdict.SKIPPED)
