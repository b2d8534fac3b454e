"""Linear multistep (Adams-Bashforth) in σ/α, as k-diffusion has it."""

from collections.abc import Iterator, Sequence

from numpy.polynomial import Polynomial

from domains.inference.solvers.line import Line, Mix, Sum, clean_of, noise_of
from domains.inference.solvers.walk import Walk

_ORDER = 4


def lms(walk: Walk) -> Iterator[Line]:
    """Integrates the polynomial through the last slopes. The slope d(x/α)/d(σ/α) is the noise; of a flow, the output."""
    for index, step in enumerate(walk.steps):
        nodes = [walk.steps[index - back].begin for back in range(min(index + 1, _ORDER))]
        places = [level.sigma if walk.flow else level.ratio for level in nodes]
        to = step.end.sigma if walk.flow else step.end.ratio
        scale = 1.0 if walk.flow else step.end.alpha
        yield Line(
            timestep=step.begin.timestep,
            clean=clean_of(step.begin, walk.prediction),
            kept=Mix(0.0, 1.0) if walk.flow else noise_of(step.begin, walk.prediction),
            following=Sum(
                latents=1.0 if walk.flow else step.end.alpha / step.begin.alpha,
                kept=tuple(scale * weight for weight in integrals(places, places[0], to)),
            ),
        )


def integrals(places: Sequence[float], begin: float, end: float) -> list[float]:
    """∫ of each Lagrange polynomial of the places, from begin to end."""
    # The variable is shifted and scaled so that the powers of close places do not cancel.
    unit = end - begin
    moved = [(place - begin) / unit for place in places]
    found = list[float]()
    for chosen in moved:
        basis = Polynomial([1.0])
        for other in moved:
            if other != chosen:
                basis *= Polynomial([-other, 1.0]) / (chosen - other)
        found.append(float(basis.integ()(1.0)) * unit)
    return found
