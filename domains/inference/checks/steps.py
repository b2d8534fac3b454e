"""Finds the faults of a request for a part of the steps."""

from collections.abc import Iterator

from domains.errors import ErrorReason, InvalidRequest, Violation
from domains.inference.checks.bounds import within
from domains.inference.generation import Generation, ResolvedGeneration
from domains.inference.step_range import StepRange

_NOTHING_TO_START_FROM = (
    "noise is all that a walk without a picture or latents starts from; leave it out, or give init_image"
)


def step_violations(part: StepRange) -> Iterator[Violation]:
    """Values that are wrong by themselves."""
    wrong = [
        *within("sampling.first_step", part.first_step),
        *within("sampling.last_step", part.last_step),
    ]
    yield from wrong
    first, last = part.first_step or 0, part.last_step
    if not wrong and last is not None and last <= first:
        text = f"{last} is not after the first step, {first}, so that no step is computed"
        yield Violation(field=_path("last_step"), message=text, allowed=f"{first + 1} or more")


def step_exclusions(asked: Generation) -> Iterator[Violation]:
    """Fields that a part of the steps excludes."""
    part, init = asked.sampling.part, asked.init_image
    if part.first_step is not None and init is not None and init.strength is not None:
        text = "the strength of init_image says which step is the first; leave one of the two out"
        yield Violation(field=_path("first_step"), message=text)
    if part.first_step is not None and asked.outpaint is not None:
        text = "a picture that grows computes all steps in its new parts; leave one of the two out"
        yield Violation(field=_path("first_step"), message=text)
    if part.add_noise is False and init is None and asked.init_latents is None:
        yield Violation(field=_path("add_noise"), message=_NOTHING_TO_START_FROM)
    if part.add_noise is False and (asked.mask is not None or asked.outpaint is not None):
        text = "what surrounds a masked part has the noise of each step; leave one of the two out"
        yield Violation(field=_path("add_noise"), message=text)


def check_steps(resolved: ResolvedGeneration) -> None:
    """Raise UNSUPPORTED_COMBINATION for steps that the walk does not have."""
    if wrong := list(_beyond(resolved.part, resolved.steps, resolved.visited)):
        raise InvalidRequest(wrong, ErrorReason.UNSUPPORTED_COMBINATION)


def _beyond(part: StepRange, steps: int, visited: range) -> Iterator[Violation]:
    first, last = part.first_step, part.last_step
    if first is not None and first >= steps:
        text = f"{first} is not within 0..{steps - 1}: the walk has {steps} steps, counted from 0"
        yield Violation(field=_path("first_step"), message=text, allowed=f"0..{steps - 1}")
    elif last is not None and last > steps:
        text = f"{last} is not within 1..{steps}: the walk has {steps} steps"
        yield Violation(field=_path("last_step"), message=text, allowed=f"1..{steps}")
    elif last is not None and not visited:
        text = f"{last} is not after the first step, {visited.start}, which the strength of init_image chooses"
        yield Violation(field=_path("last_step"), message=text, allowed=f"{visited.start + 1}..{steps}")


def _path(name: str) -> str:
    return f"generation.sampling.{name}"
