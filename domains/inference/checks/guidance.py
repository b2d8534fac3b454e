"""Finds the faults of guidance: of its strength in all its kinds, and of the steps in which it counts."""

from collections.abc import Iterator

from domains.errors import Violation
from domains.inference.checks.bounds import range_faults, within
from domains.inference.generation import Sampling
from domains.inference.guidance import default_distilled
from domains.model.model import Model

_RANGE = ("guidance_start_ratio", "guidance_end_ratio")
_NUMBERS = ("distilled_guidance", "guidance_rescale", "dynamic_threshold_ratio")


def guidance_violations(asked: Sampling) -> Iterator[Violation]:
    """Values outside their ranges, and an end that is not after the start."""
    ends = asked.guidance_start_ratio, asked.guidance_end_ratio
    yield from range_faults("sampling", "generation.sampling", _RANGE, ends, "the guided steps end")
    for name in _NUMBERS:
        yield from within(f"sampling.{name}", getattr(asked, name))


def guidance_for_model(asked: Sampling, model: Model) -> Iterator[Violation]:
    """Kinds of guidance that a model does not read."""
    if asked.distilled_guidance is not None and default_distilled(model) is None:
        text = f"model {model.id} was not distilled with guidance, and reads none; leave it out, or give guidance_scale"
        yield Violation(field="generation.sampling.distilled_guidance", message=text)
    if asked.dynamic_threshold_ratio is not None:
        text = f"models of the family {model.family} compute in latents, whose values have no range; leave it out"
        yield Violation(field="generation.sampling.dynamic_threshold_ratio", message=text)
