"""Finds the faults of a seed's variation."""

from collections.abc import Iterator

from domains.errors import Violation
from domains.inference.checks.bounds import within
from domains.inference.seed_variation import SeedVariation

_PATH = "sampling.seed_variation"


def variation_violations(asked: SeedVariation | None) -> Iterator[Violation]:
    """Faults of a variation."""
    if asked is None:
        return
    yield from within(f"{_PATH}.seed", asked.seed)
    if asked.strength is None:
        message = "must be set: 0 is the first seed's picture, 1 the other seed's"
        yield Violation(field=f"generation.{_PATH}.strength", message=message, allowed="0..1")
    yield from within(f"{_PATH}.strength", asked.strength)
