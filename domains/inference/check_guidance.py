"""Finds the faults of the steps in which guidance counts."""

from collections.abc import Iterator

from domains.errors import Violation
from domains.inference.bounds import within
from domains.inference.generation import Sampling
from domains.model.families import Family

_NAMES = ("guidance_start_ratio", "guidance_end_ratio")


def guidance_violations(asked: Sampling) -> Iterator[Violation]:
    """Values outside their ranges, and an end that is not after the start."""
    wrong = [one for name in _NAMES for one in within(f"sampling.{name}", getattr(asked, name))]
    yield from wrong
    start = asked.guidance_start_ratio or 0.0
    end = 1.0 if asked.guidance_end_ratio is None else asked.guidance_end_ratio
    if not wrong and end <= start:
        message = f"guidance ends at {end:g}, which is not after its start at {start:g}; give an end after the start"
        allowed = f"more than {start:g}, up to 1"
        yield Violation(field="generation.sampling.guidance_end_ratio", message=message, allowed=allowed)


def guidance_for_family(asked: Sampling, family: Family) -> Iterator[Violation]:
    """A range for models that compute no guidance of their own."""
    for name in _NAMES if family.guidance_off is None else ():
        if getattr(asked, name) is not None:
            text = f"models of the family {family.id} read guidance as a number in all steps; leave it out"
            yield Violation(field=f"generation.sampling.{name}", message=text)
