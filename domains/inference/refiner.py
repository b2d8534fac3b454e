"""The refiner of the last steps: as requested, and with every choice made."""

import math

import msgspec

DEFAULT_START = 0.8
DEFAULT_SCORE = 6.0
DEFAULT_NEGATIVE_SCORE = 2.5
_ROUNDING = 1e-6


class RefinerPass(msgspec.Struct, frozen=True, kw_only=True):
    """A refiner, as requested."""

    model_id: str
    start_ratio: float | None = None
    """Share of the steps after which it takes over, 0..1. Absent: 0.8."""
    aesthetic_score: float | None = None
    """0..10. Absent: 6."""
    negative_aesthetic_score: float | None = None
    """0..10. Absent: 2.5."""


class ResolvedRefiner(msgspec.Struct, frozen=True, kw_only=True):
    """A refiner with every choice made."""

    model_id: str
    model_sha256: str
    """Hash of its weights: a replay detects another model with the same id."""
    family: str
    start_ratio: float
    aesthetic_score: float
    negative_aesthetic_score: float

    def first_step(self, steps: int) -> int:
        """The first step (from 0, of `steps`) that it computes."""
        return math.ceil(steps * self.start_ratio - _ROUNDING)
