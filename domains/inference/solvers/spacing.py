"""Which trained timesteps a walk visits, by the model's `timestep_spacing` (Lin et al. 2023, table 2) and the solver's grid.

Diffusers' solvers differ here: some visit n timesteps, some the first n of n + 1, some whole timesteps alone.
"""

from collections.abc import Mapping
from enum import Enum
from typing import Any

import numpy as np
from numpy.typing import NDArray

from domains.inference.samplers import DISTILLED_STEPS


class Grid(Enum):
    """How a solver lays its steps over the trained timesteps."""

    POINTS = "points"
    """n timesteps, which may be fractions, then a level without noise: the solvers of k-diffusion."""
    TRAINED = "trained"
    """n whole timesteps; each step covers ⌊trained timesteps / n⌋ of them: DDIM, PNDM."""
    CHAIN = "chain"
    """n whole timesteps, each step to the next: DDPM."""
    INTERVALS = "intervals"
    """The first n of n + 1 whole timesteps: solvers over several steps."""
    DISTILLED = "distilled"
    """n of the 50 timesteps that a model was distilled to: LCM, TCD."""


DEFAULTS: Mapping[Grid, str] = {Grid.POINTS: "linspace", Grid.INTERVALS: "linspace"}
"""Diffusers' spacing for a config that names none. The other grids have `leading`."""


def timesteps(grid: Grid, spacing: str, offset: int, steps: int, trained: int, last: int) -> NDArray[Any]:
    """Falling timesteps. `last`: one above the highest that the walk may visit; `trained` but for clipped schedules."""
    match grid, spacing:
        case Grid.DISTILLED, _:
            distilled = min(DISTILLED_STEPS, trained)
            origin = np.arange(1, distilled + 1)[::-1] * (trained // distilled) - 1
            return origin[np.floor(np.linspace(0, len(origin), steps, endpoint=False)).astype(int)].astype(float)
        case Grid.POINTS, "linspace":
            return np.linspace(0, trained - 1, steps)[::-1]
        case Grid.INTERVALS, "linspace":
            return np.linspace(0, last - 1, steps + 1).round()[:0:-1]
        case _, "linspace":
            return np.linspace(0, trained - 1, steps).round()[::-1]
        case Grid.INTERVALS, "leading":
            return (np.arange(steps + 1) * (last // (steps + 1)))[:0:-1] + float(offset)
        case _, "leading":
            return (np.arange(steps) * (trained // steps))[::-1] + float(offset)
        case _:
            begin = last if grid is Grid.INTERVALS else trained
            return np.arange(begin, 0, -trained / steps).round() - 1
