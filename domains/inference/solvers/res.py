"""RES: a second-order exponential multistep integrator (Zhang et al. 2023, "Improved order analysis…")."""

import math
from collections.abc import Iterator

from domains.inference.solvers.line import Line, Sum, clean_of, toward
from domains.inference.solvers.walk import Walk


def res_multistep(walk: Walk) -> Iterator[Line]:
    """The first step and one toward a level without noise are Euler's."""
    for index, step in enumerate(walk.steps):
        clean = clean_of(step.begin, walk.prediction)
        if index == 0 or not step.end.sigma:
            latents, estimate = toward(step.begin, step.end)
            following = Sum(latents=latents, kept=(estimate,))
        else:
            h = step.end.log_snr - step.begin.log_snr
            before = (walk.steps[index - 1].begin.log_snr - step.begin.log_snr) / h
            phi_1 = math.expm1(-h) / -h
            phi_2 = (phi_1 - 1) / -h
            scale = step.end.alpha * h
            following = Sum(
                latents=step.end.sigma / step.begin.sigma,
                kept=(scale * (phi_1 - phi_2 / before), scale * phi_2 / before),
            )
        yield Line(timestep=step.begin.timestep, clean=clean, kept=clean, following=following)
