"""Finds the faults of what a denoiser is told about sizes."""

from collections.abc import Iterator

from domains.errors import Violation
from domains.inference.checks.bounds import within
from domains.inference.size_conditioning import SizeConditioning
from domains.model.families import Family


def size_violations(asked: SizeConditioning | None) -> Iterator[Violation]:
    """Values outside their ranges."""
    for path, value in asked.by_path.items() if asked else ():
        if value:
            yield from within(path, value)


def sizes_for_family(asked: SizeConditioning | None, family: Family) -> Iterator[Violation]:
    """Sizes that the models of a family are not told."""
    for path, value in asked.by_path.items() if asked and not family.reads_sizes else ():
        if value:
            text = f"models of the family {family.id} are told no sizes; leave it out"
            yield Violation(field=f"generation.{path}", message=text)
