"""Linear multistep (Adams-Bashforth) in σ/α, as k-diffusion has it."""

import math
from collections.abc import Iterator, Sequence

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
    """∫ of each Lagrange polynomial of at most four places, from begin to end."""
    half, middle = (end - begin) / 2, (begin + end) / 2
    # Two nodes of Gauss and Legendre integrate a cubic exactly.
    nodes = (middle - half / math.sqrt(3), middle + half / math.sqrt(3))
    return [half * sum(_basis(places, chosen, node) for node in nodes) for chosen in range(len(places))]


def _basis(places: Sequence[float], chosen: int, at: float) -> float:
    others = (place for index, place in enumerate(places) if index != chosen)
    return math.prod((at - place) / (places[chosen] - place) for place in others)
