"""DPM-Solver++ over several steps (Lu et al. 2022b), without new noise and with it."""

import math
from collections.abc import Callable, Iterator

from domains.inference.solvers.line import Line, Mix, Sum, clean_of
from domains.inference.solvers.walk import Step, Walk

_SHORT = 15
"""Walks with fewer steps end with lower orders."""


def dpmpp_2m(walk: Walk) -> Iterator[Line]:
    """Second order, deterministic."""
    return _walked(walk, 2, _plain, heun=walk.options.heun)


def dpmpp_2m_sde(walk: Walk) -> Iterator[Line]:
    """Second order with new noise."""
    return _walked(walk, 2, _noisy, heun=walk.options.heun)


def dpmpp_3m_sde(walk: Walk) -> Iterator[Line]:
    """Third order with new noise, as k-diffusion has it (eta 1): diffusers' third term has another sign."""
    return _walked(walk, 3, _noisy, heun=True)


_Follow = Callable[[list[Step], int, bool], Sum]
"""(steps up to this one, order, whether the second term has the form named heun) → what follows."""


def _walked(walk: Walk, most: int, follow: _Follow, *, heun: bool) -> Iterator[Line]:
    for index, step in enumerate(walk.steps):
        clean = clean_of(step.begin, walk.prediction)
        before = list(walk.steps[max(0, index + 1 - most) : index + 1])
        yield _line(step, clean, follow(before, _order(walk, index, most), heun))


def _line(step: Step, clean: Mix, following: Sum) -> Line:
    return Line(timestep=step.begin.timestep, clean=clean, kept=clean, following=following)


def _order(walk: Walk, index: int, most: int) -> int:
    """Order of one step: the number of estimates, at most `most`; less at a short walk's end, and 1 before no noise."""
    left = len(walk.steps) - index
    short = walk.options.lower_order_final and walk.planned < _SHORT
    if left == 1 and (short or walk.options.euler_at_final or not walk.steps[-1].end.sigma):
        return 1
    return min(most, index + 1, 2 if left == 2 and short else most)


def _plain(before: list[Step], order: int, heun: bool) -> Sum:
    step = before[-1]
    h = step.end.log_snr - step.begin.log_snr
    first = -step.end.alpha * math.expm1(-h)
    second = step.end.alpha * (math.expm1(-h) / h + 1) if heun and order > 1 else first / 2
    return Sum(latents=step.end.sigma / step.begin.sigma, kept=_kept(before, order, first, second, 0.0))


def _noisy(before: list[Step], order: int, heun: bool) -> Sum:
    step = before[-1]
    twice = 2 * (step.end.log_snr - step.begin.log_snr)
    alpha = step.end.alpha
    first = -alpha * math.expm1(-twice)
    bent = math.expm1(-twice) / twice + 1 if order > 1 else 0.0
    return Sum(
        latents=step.end.sigma / step.begin.sigma * math.exp(-twice / 2),
        kept=_kept(before, order, first, alpha * bent if heun else first / 2, -alpha * (bent / twice - 0.5)),
        noise=step.end.sigma * math.sqrt(-math.expm1(-twice)),
    )


def _kept(before: list[Step], order: int, first: float, second: float, third: float) -> tuple[float, ...]:
    """Coefficients of the newest estimates, from those of their value and of its divided differences in λ."""
    if order == 1:
        return (first,)
    h, r0 = _ratios(before)
    if order == 2:
        return first + second / r0, -second / r0
    r1 = (before[-2].begin.log_snr - before[-3].begin.log_snr) / h
    # D1 = d0 + (d0 − d1)·r0/(r0 + r1) and D2 = (d0 − d1)/(r0 + r1), with d0 = (m0 − m1)/r0 and d1 = (m1 − m2)/r1.
    share = (second * r0 + third) / (r0 + r1)
    of_d0, of_d1 = second + share, -share
    return first + of_d0 / r0, of_d1 / r1 - of_d0 / r0, -of_d1 / r1


def _ratios(before: list[Step]) -> tuple[float, float]:
    """(h, r0): the length of this step in λ, and that of the last one in its unit."""
    step, last = before[-1], before[-2]
    h = step.end.log_snr - step.begin.log_snr
    return h, (step.begin.log_snr - last.begin.log_snr) / h
