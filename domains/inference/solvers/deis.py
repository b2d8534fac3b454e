"""DEIS (Zhang & Chen 2022) in its form "log ρ": the noise as a polynomial in log(σ/α), integrated over σ/α."""

import math
from collections.abc import Iterator, Sequence

from domains.inference.solvers.line import Line, Sum, clean_of, noise_of
from domains.inference.solvers.walk import Walk

_SHORT = 15
"""Walks with fewer steps end with lower orders."""


def deis(walk: Walk) -> Iterator[Line]:
    """DEIS up to the options' order. Diffusers ends at a level with noise, as do walks by a schedule; see `table`."""
    for index, step in enumerate(walk.steps):
        ratios = [walk.steps[index - back].begin.ratio for back in range(_order(walk, index))]
        yield Line(
            timestep=step.begin.timestep,
            clean=clean_of(step.begin, walk.prediction),
            kept=noise_of(step.begin, walk.prediction),
            following=Sum(
                latents=step.end.alpha / step.begin.alpha,
                kept=tuple(step.end.alpha * weight for weight in _integrals(ratios, step.end.ratio)),
            ),
        )


def _order(walk: Walk, index: int) -> int:
    left = len(walk.steps) - index
    short = walk.options.lower_order_final and walk.planned < _SHORT
    return min(walk.options.order, index + 1, left if short and left < 3 else walk.options.order)


def _integrals(ratios: Sequence[float], end: float) -> list[float]:
    """∫ of each Lagrange polynomial in log ρ, dρ from the newest ratio to the end."""
    logs = [math.log(ratio) for ratio in ratios]
    found = list[float]()
    for chosen in logs:
        basis = [1.0]
        for other in logs:
            if other != chosen:
                basis = _times(basis, -other / (chosen - other), 1.0 / (chosen - other))
        # At no noise the antiderivative is 0: ρ falls faster than a power of log ρ rises.
        found.append((_under(basis, math.log(end)) if end else 0.0) - _under(basis, logs[0]))
    return found


def _times(basis: Sequence[float], constant: float, slope: float) -> list[float]:
    """The coefficients, lowest power first, of a polynomial times `constant + slope·x`."""
    return [constant * low + slope * high for low, high in zip((*basis, 0.0), (0.0, *basis), strict=True)]


def _under(basis: Sequence[float], log_ratio: float) -> float:
    """The antiderivative: ∫ p(log ρ) dρ = ρ·(p − p′ + p″ − …)(log ρ). `basis`: p's coefficients, lowest power first.

    Plain numbers: numpy's Polynomial takes 20 times as long for so few.
    """
    total, sign, part = 0.0, 1.0, basis
    while part:
        value = 0.0
        for coefficient in reversed(part):
            value = coefficient + value * log_ratio
        total += sign * value
        sign, part = -sign, [power * coefficient for power, coefficient in enumerate(part)][1:]
    return math.exp(log_ratio) * total
