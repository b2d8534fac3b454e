"""The budget of a pool: how much the server may use, and the thresholds of the pressure levels."""

from collections.abc import Iterator
from itertools import pairwise

import msgspec

from domains.errors import InvalidRequest, Violation

MAX_IDLE_S = 24 * 3600.0


class MemoryBudget(msgspec.Struct, frozen=True, kw_only=True):
    """A budget with every default filled in. The constructor raises InvalidRequest with all violations."""

    limit_bytes: int | None = None
    """The most that the server may hold, allocator caches included. None: no limit but the size of the pool."""
    headroom_bytes: int = 0
    """Bytes of the pool that stay free for other processes."""
    warning_ratio: float = 0.80
    """Share of the usable memory from which the pressure is WARNING."""
    critical_ratio: float = 0.90
    emergency_ratio: float = 0.95
    automatic_reclaim: bool = True
    """Whether the server empties caches from WARNING on and unloads idle models from CRITICAL on."""
    idle_after_s: float = 300.0
    """Seconds without use after which a loaded model counts as idle."""

    def __post_init__(self) -> None:
        wrong = [*_wrong_sizes(self), *_wrong_ratios(self)]
        if not 1 <= self.idle_after_s <= MAX_IDLE_S:
            wrong.append(_violation("idle_after", f"{self.idle_after_s} s is not within 1 s..24 h", "1 s..24 h"))
        if wrong:
            raise InvalidRequest(wrong)

    def ceiling_bytes(self, total_bytes: int | None) -> int | None:
        """The most that the server can have in a pool of this size. None: neither size nor limit is known."""
        bounds = [self.limit_bytes, None if total_bytes is None else max(0, total_bytes - self.headroom_bytes)]
        return min((bound for bound in bounds if bound is not None), default=None)


def _wrong_sizes(budget: MemoryBudget) -> Iterator[Violation]:
    for field in ("limit_bytes", "headroom_bytes"):
        value: int | None = getattr(budget, field)
        if value is not None and value < 0:
            yield _violation(field, f"{value} is negative", "0..")


def _wrong_ratios(budget: MemoryBudget) -> Iterator[Violation]:
    fields = ("warning_ratio", "critical_ratio", "emergency_ratio")
    ratios: list[float] = [getattr(budget, field) for field in fields]
    sound = [0 <= ratio <= 1 for ratio in ratios]  # False for NaN
    for field, ratio, good in zip(fields, ratios, sound, strict=True):
        if not good:
            yield _violation(field, f"{ratio} is not within 0..1", "0..1")
    for (field, ratio, good), (above, limit, also) in pairwise(zip(fields, ratios, sound, strict=True)):
        if good and also and ratio >= limit:
            yield _violation(field, f"{ratio} is not below {above} ({limit})", f"below {above}")


def _violation(field: str, message: str, allowed: str) -> Violation:
    return Violation(field=f"memory_budget.{field}", message=message, allowed=allowed)
