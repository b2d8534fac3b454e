"""Which ratios σ/α a walk visits: one function per sigma schedule, from the highest to the lowest, without the last zero."""

import math
from collections.abc import Callable, Mapping

import numpy as np
from numpy.typing import NDArray

from domains.inference.solvers.trained_noise import TrainedNoise

Array = NDArray[np.float64]
Schedule = Callable[[int, float, float, TrainedNoise], Array]
"""(steps, lowest σ/α, highest σ/α, trained levels) → as many falling ratios as steps."""

_RHO = 7.0
"""Karras et al. 2022, equation 5."""
_ALIGNED = (14.615, 6.475, 3.861, 2.697, 1.886, 1.396, 0.963, 0.652, 0.399, 0.152, 0.029)
"""Optimised levels of ten steps of Stable Diffusion 1.5 (Sabour et al. 2024, "Align Your Steps")."""
_THRESHOLD = 0.025
"""Noise that the linear half of `linear_quadratic` removes (Polyak et al. 2024, Movie Gen)."""


def karras(steps: int, low: float, high: float, trained: TrainedNoise | None = None) -> Array:
    """Equal steps in the seventh root."""
    ramp = np.linspace(0, 1, steps)
    return (high ** (1 / _RHO) + ramp * (low ** (1 / _RHO) - high ** (1 / _RHO))) ** _RHO


def exponential(steps: int, low: float, high: float, trained: TrainedNoise | None = None) -> Array:
    """Equal steps in the logarithm."""
    return np.exp(np.linspace(math.log(high), math.log(low), steps))


def beta(steps: int, low: float, high: float, trained: TrainedNoise | None = None) -> Array:
    """Quantiles of the beta distribution with both parameters 0.6 (Lee et al. 2024, "Beta Sampling is All You Need")."""
    places = 1 - np.linspace(0, 1, steps)
    return low + (high - low) * beta_quantiles(places)


def sgm_uniform(steps: int, low: float, high: float, trained: TrainedNoise) -> Array:
    """The first n of n + 1 equal steps in the timestep (Stability's generative-models)."""
    places = np.linspace(trained.timestep_of(high), trained.timestep_of(low), steps + 1)[:-1]
    return np.array([trained.at_fraction(float(place)).ratio for place in places])


def simple(steps: int, low: float, high: float, trained: TrainedNoise) -> Array:
    """Every so many trained levels, from the highest on (ComfyUI)."""
    stride = len(trained) / steps
    return np.array([trained.ratios[-(1 + int(index * stride))] for index in range(steps)])


def linear_quadratic(steps: int, low: float, high: float, trained: TrainedNoise) -> Array:
    """Half of the steps remove little noise linearly, the others the rest quadratically."""
    linear = steps // 2
    if not linear:
        return np.array([high])
    places = np.arange(steps, dtype=float)
    slope = _THRESHOLD / linear
    left = steps - linear
    # The parabola meets the line in value and slope, and reaches 1 after the last step.
    bend = (1 - _THRESHOLD - slope * left) / left**2
    beyond = np.maximum(places - linear, 0)
    return high * (1 - (slope * places + bend * beyond**2))


def align_your_steps(steps: int, low: float, high: float, trained: TrainedNoise) -> Array:
    """The optimised levels of Stable Diffusion 1.5, interpolated in their logarithm to any number of steps."""
    known = np.log(_ALIGNED)
    places = np.linspace(0, len(known) - 1, steps + 1)[:-1]
    return np.exp(np.interp(places, np.arange(len(known)), known))


def beta_quantiles(places: Array) -> Array:
    """Quantiles of Beta(0.6, 0.6), which is symmetric about 1/2, by bisection."""
    lower = np.minimum(places, 1 - places)
    low, high = np.zeros_like(lower), np.full_like(lower, 0.5)
    for _ in range(60):
        middle = (low + high) / 2
        below = _beta_mass(middle) < lower * _WHOLE
        low, high = np.where(below, middle, low), np.where(below, high, middle)
    found = np.where(lower > 0, high, 0.0)
    return np.where(places > 0.5, 1 - found, found)


def _beta_mass(ends: Array) -> Array:
    """p·∫ (t·(1 − t))^(p − 1) dt from 0 to ends of at most 1/2; with u = t^p there is no pole at 0."""
    half = ends[..., None] ** _BETA / 2
    places = half * (_NODES + 1)
    return (half * _NODE_WEIGHTS * (1 - places ** (1 / _BETA)) ** (_BETA - 1)).sum(-1)


_BETA = 0.6
_NODES, _NODE_WEIGHTS = np.polynomial.legendre.leggauss(64)
_WHOLE = 2 * float(_beta_mass(np.array(0.5)))

SCHEDULES: Mapping[str, Schedule] = {
    "karras": karras,
    "exponential": exponential,
    "beta": beta,
    "sgm_uniform": sgm_uniform,
    "simple": simple,
    "linear_quadratic": linear_quadratic,
    "align_your_steps": align_your_steps,
}
"""By id; `normal` is the model's own spacing, see `spacing`."""

FREE_SCHEDULES: Mapping[str, Callable[[int, float, float], Array]] = {
    "karras": karras,
    "exponential": exponential,
    "beta": beta,
}
"""Those that need no trained levels: flow models take them too, between two sigmas."""
