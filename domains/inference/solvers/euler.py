"""Euler's method and its ancestral form (Karras et al. 2022, algorithm 2; k-diffusion)."""

from collections.abc import Iterator

from domains.inference.solvers.line import Line, Sum, ancestral, clean_of, toward
from domains.inference.solvers.walk import Walk


def euler(walk: Walk) -> Iterator[Line]:
    """Euler's method: one step to the next level along the slope."""
    for step in walk.steps:
        clean = clean_of(step.begin, walk.prediction)
        latents, estimate = toward(step.begin, step.end)
        following = Sum(latents=latents, kept=(estimate,))
        yield Line(timestep=step.begin.timestep, clean=clean, kept=clean, following=following)


def euler_ancestral(walk: Walk) -> Iterator[Line]:
    """Ancestral Euler: each line goes below the next level, then up to it with new noise."""
    for step in walk.steps:
        clean = clean_of(step.begin, walk.prediction)
        down, up = ancestral(step.begin, step.end)
        scale = step.end.alpha
        following = Sum(
            latents=scale * down / step.begin.sigma,
            kept=(scale * (1 - down / step.begin.ratio),),
            noise=scale * up,
        )
        yield Line(timestep=step.begin.timestep, clean=clean, kept=clean, following=following)
