"""Finds the faults of the steps in which guidance counts."""

from collections.abc import Iterator

from domains.errors import Violation
from domains.inference.bounds import range_faults
from domains.inference.generation import Sampling
from domains.model.families import Family

_NAMES = ("guidance_start_ratio", "guidance_end_ratio")


def guidance_violations(asked: Sampling) -> Iterator[Violation]:
    """Values outside their ranges, and an end that is not after the start."""
    ends = asked.guidance_start_ratio, asked.guidance_end_ratio
    yield from range_faults("sampling", "generation.sampling", _NAMES, ends, "the guided steps end")


def guidance_for_family(asked: Sampling, family: Family) -> Iterator[Violation]:
    """A range for models that compute no guidance of their own."""
    for name in _NAMES if family.guidance_off is None else ():
        if getattr(asked, name) is not None:
            text = f"models of the family {family.id} read guidance as a number in all steps; leave it out"
            yield Violation(field=f"generation.sampling.{name}", message=text)
