"""The passes of a generation, each as a generation of its own: the one engine computes them one after the other."""

from collections.abc import Iterator
from enum import StrEnum

import msgspec
from msgspec.structs import replace

from domains.inference.generation import ResolvedGeneration
from domains.inference.hires import ResolvedHires
from domains.inference.latents import ResolvedLatents
from domains.inference.regions import at_size
from domains.inference.step_range import ALL_STEPS
from domains.progress import Stage


class PassKind(StrEnum):
    """What a pass does."""

    FIRST = "first"
    HIRES = "hires"
    """Denoises an enlarged picture again."""


STAGES = {PassKind.FIRST: Stage.DENOISING, PassKind.HIRES: Stage.HIRES}
"""The stage in which a pass computes its steps."""


class Pass(msgspec.Struct, frozen=True):
    """One pass."""

    kind: PassKind
    resolved: ResolvedGeneration
    """What it computes: without other passes."""

    @property
    def stage(self) -> Stage:
        """The stage of its steps."""
        return STAGES[self.kind]


def passes_of(resolved: ResolvedGeneration) -> tuple[Pass, ...]:
    """All passes of a generation, in their order. The first one draws its own beginning, each other one has the latents of
    the one before it."""
    return tuple(_passes(resolved))


def _passes(resolved: ResolvedGeneration) -> Iterator[Pass]:
    first = replace(resolved, hires_pass=None)
    yield Pass(PassKind.FIRST, first)
    if resolved.hires_pass is not None:
        yield Pass(PassKind.HIRES, _again(first, resolved.hires_pass))


def _again(first: ResolvedGeneration, hires: ResolvedHires) -> ResolvedGeneration:
    """The second pass: from latents, at its own size."""
    positive = {"prompt": hires.prompt, "second_prompt": "", "third_prompt": ""} if hires.prompt else {}
    names = ("negative_prompt", "second_negative_prompt", "third_negative_prompt")
    negative = dict(zip(names, (hires.negative_prompt, "", ""), strict=True)) if hires.negative_prompt else {}
    sizes = (first.width_px, first.height_px), (hires.width_px, hires.height_px)
    regions = tuple(
        one if one.rectangle is None else replace(one, rectangle=at_size(one.rectangle, *sizes))
        for one in first.regions
    )
    return replace(
        first,
        **{**positive, **negative},
        regions=regions,
        width_px=hires.width_px,
        height_px=hires.height_px,
        steps=hires.steps,
        sampler=hires.sampler,
        sigma_schedule=hires.sigma_schedule,
        guidance_scale=hires.guidance_scale,
        eta=hires.eta,
        own=replace(first.own, sigmas=(), timesteps=()) if hires.sigma_schedule else first.own,
        part=ALL_STEPS,
        init_image=None,
        init_latents=ResolvedLatents(strength=hires.strength),
    )


def largest_px(resolved: ResolvedGeneration) -> tuple[int, int]:
    """(width, height) of the largest pass, which decides about memory."""
    sizes = [(one.resolved.width_px, one.resolved.height_px) for one in passes_of(resolved)]
    return max(sizes, key=lambda size: size[0] * size[1])


def steps_by_stage(resolved: ResolvedGeneration) -> dict[Stage, int]:
    """The number of computed steps of each pass, in their order."""
    return {one.stage: one.resolved.computed_steps for one in passes_of(resolved)}
