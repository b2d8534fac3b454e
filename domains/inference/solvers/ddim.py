"""DDIM (Song et al. 2021) and DDPM (Ho et al. 2020): steps between trained levels."""

import math
from collections.abc import Iterator

from domains.inference.solvers.line import Line, Sum, clean_of
from domains.inference.solvers.walk import Step, Walk


def ddim(walk: Walk) -> Iterator[Line]:
    """Equation 12 of Song et al.: straight on with a share `eta` of the noise new."""
    for step in walk.steps:
        clean = clean_of(step.begin, walk.prediction)
        fresh = walk.options.eta * _deviation(step)
        held = math.sqrt(max(0.0, step.end.sigma**2 - fresh**2)) / step.begin.sigma
        following = Sum(latents=held, kept=(step.end.alpha - held * step.begin.alpha,), noise=fresh)
        yield Line(timestep=step.begin.timestep, clean=clean, kept=clean, following=following)


def ddpm(walk: Walk) -> Iterator[Line]:
    """Equations 6 and 7 of Ho et al.: the mean of the posterior, and noise of its variance (or of β)."""
    for step in walk.steps:
        clean = clean_of(step.begin, walk.prediction)
        kept_share = (step.begin.alpha / step.end.alpha) ** 2
        beta = 1 - kept_share
        variance = step.begin.sigma**2
        following = Sum(
            latents=math.sqrt(kept_share) * step.end.sigma**2 / variance,
            kept=(step.end.alpha * beta / variance,),
            noise=_noise(step, beta, large=walk.options.large_variance),
        )
        yield Line(timestep=step.begin.timestep, clean=clean, kept=clean, following=following)


def _deviation(step: Step) -> float:
    """Standard deviation of the posterior's noise: equation 16 of Song et al. with η = 1."""
    gone = 1 - (step.begin.alpha / step.end.alpha) ** 2
    return step.end.sigma / step.begin.sigma * math.sqrt(max(0.0, gone))


def _noise(step: Step, beta: float, *, large: bool) -> float:
    """None at the last level; there the large variance would leave noise in the picture."""
    if not step.end.sigma:
        return 0.0
    return math.sqrt(beta) if large else _deviation(step)
