"""Solvers with two evaluations a step: the second one at a level within the step, or at its end.

The last step, to a level without noise, has one evaluation: there is no level between.
"""

import math
from collections.abc import Callable, Iterator

import msgspec

from domains.inference.solvers.level import Level
from domains.inference.solvers.line import Line, Mix, Sum, ancestral, clean_of, noise_of, toward
from domains.inference.solvers.walk import Step, Walk

_KEEP = Sum(latents=1.0)


def heun(walk: Walk) -> Iterator[Line]:
    """Heun's method (Karras et al. 2022, algorithm 1): the mean of the slopes at both ends."""
    for step in walk.steps:
        if not step.end.sigma:
            yield _straight(walk, step.begin, step.end)
            continue
        hold, slope = _slope(walk, step.begin, step.end)
        yield _slope_line(walk, step.begin, Sum(latents=hold, kept=(slope,)), anchor=_KEEP, ends_step=False)
        yield _slope_line(walk, step.end, Sum(anchor=hold, kept=(slope / 2, slope / 2)))


def dpm2(walk: Walk) -> Iterator[Line]:
    """DPM-Solver-2 as k-diffusion has it: the slope at the geometric middle (Karras et al. 2022; Lu et al. 2022)."""
    return _through_middle(walk, lambda step: (step.end.ratio, 0.0))


def dpm2_ancestral(walk: Walk) -> Iterator[Line]:
    """Ancestral DPM-Solver-2: each step goes below the next level, then up to it with new noise."""
    return _through_middle(walk, lambda step: ancestral(step.begin, step.end))


def dpmpp_2s_ancestral(walk: Walk) -> Iterator[Line]:
    """DPM-Solver++(2S) with ancestral noise (Lu et al. 2022b; k-diffusion)."""
    for step in walk.steps:
        down, up = ancestral(step.begin, step.end)
        if not down:
            yield _straight(walk, step.begin, step.end)
            continue
        middle = walk.between(math.sqrt(step.begin.ratio * down))
        latents, estimate = toward(step.begin, middle)
        yield _clean_line(walk, step.begin, Sum(latents=latents, kept=(estimate,)), anchor=_KEEP, ends_step=False)
        yield _clean_line(walk, middle, _leap(step, down, up))


def dpmpp_sde(walk: Walk) -> Iterator[Line]:
    """DPM-Solver++ SDE with r = 1/2 (Lu et al. 2022b; k-diffusion). Noise is drawn anew each time: no Brownian tree."""
    for step in walk.steps:
        if not step.end.sigma:
            yield _straight(walk, step.begin, step.end)
            continue
        middle = walk.between(math.sqrt(step.begin.ratio * step.end.ratio))
        down, up = ancestral(step.begin, middle)
        shrunk = down / step.begin.ratio
        following = Sum(
            latents=middle.alpha * shrunk / step.begin.alpha,
            kept=(middle.alpha * (1 - shrunk),),
            noise=middle.alpha * up,
        )
        yield _clean_line(walk, step.begin, following, anchor=_KEEP, ends_step=False)
        yield _clean_line(walk, middle, _leap(step, *ancestral(step.begin, step.end)))


def _through_middle(walk: Walk, target: Callable[[Step], tuple[float, float]]) -> Iterator[Line]:
    for step in walk.steps:
        down, up = target(step)
        if not down:
            yield _straight(walk, step.begin, step.end)
            continue
        middle = walk.between(math.sqrt(step.begin.ratio * down))
        hold, slope = _slope(walk, step.begin, middle)
        yield _slope_line(walk, step.begin, Sum(latents=hold, kept=(slope,)), anchor=_KEEP, ends_step=False)
        yield _slope_line(walk, middle, _from_anchor(step, down, up))


def _from_anchor(step: Step, down: float, up: float) -> Sum:
    """From the step's beginning down along the slope of the middle, and up with noise."""
    scale = step.end.alpha
    return Sum(anchor=scale / step.begin.alpha, kept=(scale * (down - step.begin.ratio),), noise=scale * up)


def _leap(step: Step, down: float, up: float) -> Sum:
    """From the step's beginning toward the clean latents that the middle shows, and up with noise."""
    shrunk, scale = down / step.begin.ratio, step.end.alpha
    return Sum(anchor=scale * shrunk / step.begin.alpha, kept=(scale * (1 - shrunk),), noise=scale * up)


def _slope(walk: Walk, begin: Level, end: Level) -> tuple[float, float]:
    """Coefficients of latents and slope: of dx/dσ for a flow, else of d(x/α)/d(σ/α), which is the noise."""
    if walk.flow:
        return 1.0, end.sigma - begin.sigma
    return end.alpha / begin.alpha, end.alpha * (end.ratio - begin.ratio)


def _slope_line(walk: Walk, level: Level, following: Sum, anchor: Sum | None = None, *, ends_step: bool = True) -> Line:
    kept = Mix(0.0, 1.0) if walk.flow else noise_of(level, walk.prediction)
    return msgspec.structs.replace(_clean_line(walk, level, following, anchor, ends_step=ends_step), kept=kept)


def _clean_line(walk: Walk, level: Level, following: Sum, anchor: Sum | None = None, *, ends_step: bool = True) -> Line:
    clean = clean_of(level, walk.prediction)
    return Line(
        timestep=level.timestep, clean=clean, kept=clean, following=following, anchor=anchor, ends_step=ends_step
    )


def _straight(walk: Walk, begin: Level, end: Level) -> Line:
    latents, estimate = toward(begin, end)
    return _clean_line(walk, begin, Sum(latents=latents, kept=(estimate,)))
