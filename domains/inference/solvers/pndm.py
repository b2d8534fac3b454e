"""PNDM's linear multistep (Liu et al. 2022), known as PLMS: no Runge-Kutta steps before it."""

import math
from collections.abc import Iterator

from domains.inference.solvers.line import Line, Mix, Sum, clean_of, noise_of
from domains.inference.solvers.walk import Step, Walk

_OUTPUT = Mix(0.0, 1.0)
_WEIGHTS = (
    (1.0,),
    (3 / 2, -1 / 2),
    (23 / 12, -16 / 12, 5 / 12),
    (55 / 24, -59 / 24, 37 / 24, -9 / 24),
)
"""Adams-Bashforth weights of the last outputs, the newest first, by order."""


def pndm(walk: Walk) -> Iterator[Line]:
    """PLMS. The first step is Heun's, which gives the second one an earlier slope."""
    for index, step in enumerate(walk.steps):
        if index == 0 and len(walk.steps) > 1:
            yield _line(walk, step, _transferred(walk, step, (1.0,)), anchor=Sum(latents=1.0), ends_step=False)
            second = walk.steps[1].begin
            stride = step.begin.timestep - step.end.timestep
            mean = _transferred(walk, Step(walk.at_timestep(int(second.timestep + stride)), second), (0.5, 0.5))
            yield _line(walk, walk.steps[1], Sum(anchor=mean.latents, kept=mean.kept), remembered=False)
        else:
            yield _line(walk, step, _transferred(walk, step, _WEIGHTS[min(index, 3)]))


def _line(
    walk: Walk,
    step: Step,
    following: Sum,
    anchor: Sum | None = None,
    *,
    remembered: bool = True,
    ends_step: bool = True,
) -> Line:
    return Line(
        timestep=step.begin.timestep,
        clean=clean_of(step.begin, walk.prediction),
        kept=_OUTPUT,
        following=following,
        anchor=anchor,
        remembered=remembered,
        ends_step=ends_step,
    )


def _transferred(walk: Walk, step: Step, weights: tuple[float, ...]) -> Sum:
    """Equation 11 of the paper for the weighted mean of outputs, which the step's own latents turn into noise."""
    begin, end = step.begin, step.end
    hold = end.alpha / begin.alpha
    moved = -(end.alpha**2 - begin.alpha**2) / (
        begin.alpha**2 * end.sigma + math.sqrt(begin.alpha**2 * begin.sigma**2 * end.alpha**2)
    )
    noise = noise_of(begin, walk.prediction)
    return Sum(latents=hold + moved * noise.latents, kept=tuple(moved * noise.output * weight for weight in weights))
