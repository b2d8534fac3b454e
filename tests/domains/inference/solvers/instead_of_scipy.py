"""Stands in for scipy in diffusers' schedulers: the quantiles of a beta distribution, and the integral of a polynomial.

Without scipy the tests run in the environment that users have, and every worker that a test starts imports a sixth less.
"""

import sys
from collections.abc import Callable
from functools import cache
from types import SimpleNamespace

import numpy as np
import pytest
from numpy.typing import NDArray

_POINTS = 1_000_001


@cache
def _cumulative(alpha: float, beta: float) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Points x in 0..1 and the distribution's integral up to each, by the midpoint rule over arcsin(√x)."""
    angles = np.linspace(0, np.pi / 2, _POINTS)
    middle = (angles[1:] + angles[:-1]) / 2
    parts = np.sin(middle) ** (2 * alpha - 1) * np.cos(middle) ** (2 * beta - 1)
    integral = np.concatenate([[0.0], np.cumsum(parts)])
    return np.sin(angles) ** 2, integral / integral[-1]


def quantile(share: float, alpha: float, beta: float) -> float:
    """The x up to which a share (0..1) of the distribution lies."""
    points, integral = _cumulative(alpha, beta)
    return float(np.interp(share, integral, points))


def integral(polynomial: Callable[[float], float], begin: float, end: float) -> float:
    """The integral of a polynomial of degree 15 or less, by Gauss and Legendre, who are exact there."""
    nodes, weights = np.polynomial.legendre.leggauss(8)
    middle, half = (begin + end) / 2, (end - begin) / 2
    return half * sum(
        weight * polynomial(float(middle + half * node)) for node, weight in zip(nodes, weights, strict=True)
    )


def use_in_diffusers(patch: pytest.MonkeyPatch) -> None:
    """Have all imported schedulers of diffusers ask these functions."""
    scipy = SimpleNamespace(stats=SimpleNamespace(beta=SimpleNamespace(ppf=quantile)))

    def quad(function: Callable[[float], float], begin: float, end: float, *, epsrel: float) -> tuple[float, float]:
        return integral(function, begin, end), epsrel

    for name, module in list(sys.modules.items()):
        if name.startswith("diffusers.schedulers.scheduling_") and hasattr(module, "is_scipy_available"):
            patch.setattr(module, "is_scipy_available", lambda: True)
            patch.setattr(module, "scipy", scipy, raising=False)
            patch.setattr(module, "integrate", SimpleNamespace(quad=quad), raising=False)
