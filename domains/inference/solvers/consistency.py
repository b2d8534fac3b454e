"""Samplers of distilled models: LCM (Luo et al. 2023) and TCD (Zheng et al. 2024)."""

import math
from collections.abc import Iterator

from domains.inference.solvers.line import Line, Mix, Sum, clean_of
from domains.inference.solvers.walk import Walk

_SIGMA_DATA = 0.5
_TIMESTEP_SCALING = 10.0


def lcm(walk: Walk) -> Iterator[Line]:
    """LCM: each line goes to the clean latents, then up to the next level with new noise."""
    for step in walk.steps:
        clean = _bounded(clean_of(step.begin, walk.prediction), step.begin.timestep)
        last = step is walk.steps[-1]
        following = Sum(kept=(1.0,)) if last else Sum(kept=(step.end.alpha,), noise=step.end.sigma)
        yield Line(timestep=step.begin.timestep, clean=clean, kept=clean, following=following)


def tcd(walk: Walk) -> Iterator[Line]:
    """TCD: each line goes to a level below the next one, then up to it with new noise. `eta` is the paper's γ."""
    for step in walk.steps:
        clean = clean_of(step.begin, walk.prediction)
        down = walk.at_timestep(math.floor((1 - walk.options.eta) * step.end.timestep))
        hold = down.sigma / step.begin.sigma
        last = step is walk.steps[-1]
        up = 1.0 if last or not walk.options.eta else step.end.alpha / down.alpha
        following = Sum(
            latents=up * hold,
            kept=(up * (down.alpha - hold * step.begin.alpha),),
            noise=0.0 if up == 1.0 else math.sqrt(1 - up**2),
        )
        yield Line(timestep=step.begin.timestep, clean=clean, kept=clean, following=following)


def _bounded(clean: Mix, timestep: float) -> Mix:
    """The boundary condition of consistency models: at timestep 0 the latents themselves."""
    scaled = timestep * _TIMESTEP_SCALING
    variance = _SIGMA_DATA**2
    skip, out = variance / (scaled**2 + variance), scaled / math.sqrt(scaled**2 + variance)
    return Mix(skip + out * clean.latents, out * clean.output)
