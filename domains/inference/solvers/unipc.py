"""UniPC (Zhao et al. 2023): a predictor, and a corrector that uses the next line's evaluation."""

import math
from collections.abc import Iterator, Sequence

import numpy as np

from domains.inference.solvers.level import Level
from domains.inference.solvers.line import Line, Sum, clean_of
from domains.inference.solvers.walk import Walk


def unipc(walk: Walk) -> Iterator[Line]:
    """Each line corrects the latents that it was given, then predicts the next ones. The anchor: the corrected ones."""
    last_order = 0
    for index, step in enumerate(walk.steps):
        clean = clean_of(step.begin, walk.prediction)
        corrected = Sum(latents=1.0)
        if index and walk.skipped + index - 1 not in walk.options.uncorrected:
            corrected = _corrected(walk, index, last_order)
        last_order = _order(walk, index)
        yield Line(
            timestep=step.begin.timestep,
            clean=clean,
            kept=clean,
            following=_predicted(walk, index, last_order, corrected),
            anchor=corrected,
        )


def _order(walk: Walk, index: int) -> int:
    left = len(walk.steps) - index if walk.options.lower_order_final else walk.options.order
    return min(walk.options.order, left, index + 1)


def _predicted(walk: Walk, index: int, order: int, corrected: Sum) -> Sum:
    """UniP from the corrected latents, in terms of the tensors that these are a sum of."""
    step = walk.steps[index]
    levels = [walk.steps[index - back].begin for back in range(order)]
    hold, first, differences = _exponential(walk, levels, step.end, corrector=False)
    kept = _expanded(first, differences)
    return Sum(
        latents=hold * corrected.latents,
        anchor=hold * corrected.anchor,
        kept=_added(kept, [hold * weight for weight in corrected.kept]),
    )


def _corrected(walk: Walk, index: int, order: int) -> Sum:
    """UniC over the last step, with the estimate of its end, which is this line's kept tensor."""
    levels = [walk.steps[index - 1 - back].begin for back in range(order)]
    end = walk.steps[index].begin
    hold, first, (*differences, newest) = _exponential(walk, levels, end, corrector=True)
    older = _expanded(first, differences)
    # The newest difference is that of this line's estimate to the last one's.
    return Sum(anchor=hold, kept=(newest, older[0] - newest, *older[1:]))


def _exponential(
    walk: Walk, levels: Sequence[Level], end: Level, *, corrector: bool
) -> tuple[float, float, list[float]]:
    """Coefficients of the latents, of the newest estimate, and of each older one's difference to it; of the corrector
    also of the estimate at the end."""
    begin = levels[0]
    h = end.log_snr - begin.log_snr
    if math.isinf(h):
        # No noise is left: the estimate is the picture.
        return 0.0, end.alpha, [0.0] * (len(levels) - 1)
    ratios = [(level.log_snr - begin.log_snr) / h for level in levels[1:]]
    weights = _weights(walk, [*ratios, 1.0], -h, corrector=corrector)
    scale = -end.alpha * _b_of_h(walk, -h)
    differences = [scale * weight / ratio for weight, ratio in zip(weights, [*ratios, 1.0], strict=False)]
    return end.sigma / begin.sigma, -end.alpha * math.expm1(-h), differences


def _b_of_h(walk: Walk, h: float) -> float:
    return h if walk.options.bh1 else math.expm1(h)


def _weights(walk: Walk, ratios: list[float], h: float, *, corrector: bool) -> list[float]:
    """ρ of the differences: equation 5 of the paper, with its closed form for the lowest order."""
    order = len(ratios)
    if order == (1 if corrector else 2):
        return [0.5]
    count = order if corrector else order - 1
    if not count:
        return []
    matrix = np.array([[ratio**power for ratio in ratios[:count]] for power in range(count)])
    return np.linalg.solve(matrix, np.array(_targets(walk, h, count))).tolist()


def _targets(walk: Walk, h: float, count: int) -> list[float]:
    """φₖ₊₁(h)·k!/B(h) for k = 1 … count."""
    phi, factorial, found = math.expm1(h) / h - 1, 1, list[float]()
    for power in range(1, count + 1):
        found.append(phi * factorial / _b_of_h(walk, h))
        factorial *= power + 1
        phi = phi / h - 1 / factorial
    return found


def _expanded(first: float, differences: Sequence[float]) -> tuple[float, ...]:
    """Coefficients of the estimates, the newest first, from those of differences to the newest."""
    return first - sum(differences), *differences


def _added(left: Sequence[float], right: Sequence[float]) -> tuple[float, ...]:
    width = max(len(left), len(right))
    padded = [[*one, *[0.0] * (width - len(one))] for one in (left, right)]
    return tuple(one + other for one, other in zip(*padded, strict=True))
