"""How the time of work grows with its pictures: fitted to measured sizes, for those between them and beyond.

Work on r pictures (or rows of a forward) of n pixels takes c + r·(a·n + b·n²) seconds: launches and prompts are fixed,
convolutions grow with n, attention with n². Pure Python, since the front imports no numpy.
"""

from collections.abc import Mapping, Sequence
from math import inf, log
from typing import NamedTuple

_CHOICES = ((1,), (1, 2), (0, 1), (0, 1, 2))
"""Which of c, a and b are fitted, the likeliest first; the others are 0."""
REACH = 4
"""Times that a size may have the pixels of the largest one measured. Beyond, time grows with the pixels alone: what noise
adds to b would grow without bound, and a size would be refused for it."""
_BETTER = 0.99
"""A later choice must have at most this share of the errors of an earlier one."""


class Shape(NamedTuple):
    """The pictures of one piece of work."""

    pictures: int
    """Or rows of a forward."""
    pixels: int
    """Of each."""


class Costs(NamedTuple):
    """The coefficients, never negative."""

    fixed: float
    linear: float
    quadratic: float

    def seconds(self, shape: Shape) -> float:
        """The time that the coefficients alone give."""
        return sum(one * term for one, term in zip(self, _terms(shape), strict=True))


def seconds_for(shape: Shape, measured: Mapping[Shape, float]) -> float:
    """The time of a shape, from at least one that was measured: the fit says how it grows, the nearest measured shape how
    high it is. A shape that was measured has its own time; one beyond `REACH` has at least the time that is told."""
    if shape in measured:
        return measured[shape]
    within = REACH * max(known.pixels for known in measured)
    if shape.pixels > within:
        return seconds_for(shape._replace(pixels=within), measured) * shape.pixels / within
    costs = fitted(measured)
    nearest = min(measured, key=lambda known: abs(log(known.pictures * known.pixels / (shape.pictures * shape.pixels))))
    return costs.seconds(shape) * measured[nearest] / costs.seconds(nearest)


def fitted(measured: Mapping[Shape, float]) -> Costs:
    """The coefficients whose squared errors, each as a share of what was measured, have the smallest sum."""
    best: Costs | None = None
    least = inf
    for choice in _CHOICES:
        found = _solved(choice, measured) if len(choice) <= len(measured) else None
        if found is None or min(found) < 0:
            continue
        errors = sum((found.seconds(shape) / took - 1) ** 2 for shape, took in measured.items())
        if errors < least * _BETTER:
            best, least = found, errors
    assert best is not None, "one coefficient alone fits any times"
    return best


def _solved(choice: Sequence[int], measured: Mapping[Shape, float]) -> Costs | None:
    """Least squares for some of the coefficients, by the normal equations. None: the samples leave them open."""
    columns = [[_terms(shape)[one] / took for shape, took in measured.items()] for one in choice]
    scales = [max(column) for column in columns]
    columns = [[value / scale for value in column] for column, scale in zip(columns, scales, strict=True)]
    matrix = [[*(_product(one, other) for other in columns), sum(one)] for one in columns]
    solution = _eliminated(matrix)
    if solution is None:
        return None
    found = [0.0, 0.0, 0.0]
    for one, value, scale in zip(choice, solution, scales, strict=True):
        found[one] = value / scale
    return Costs(*found)


def _eliminated(matrix: list[list[float]]) -> Sequence[float] | None:
    """The solution of linear equations whose right side is the last column, by Gauss and Jordan."""
    for at in range(len(matrix)):
        pivot = max(range(at, len(matrix)), key=lambda row: abs(matrix[row][at]))
        if abs(matrix[pivot][at]) < 1e-9:
            return None
        matrix[at], matrix[pivot] = matrix[pivot], matrix[at]
        matrix[at] = [value / matrix[at][at] for value in matrix[at]]
        for row in range(len(matrix)):
            if row != at:
                share = matrix[row][at]
                matrix[row] = [one - share * other for one, other in zip(matrix[row], matrix[at], strict=True)]
    return [row[-1] for row in matrix]


def _product(one: Sequence[float], other: Sequence[float]) -> float:
    return sum(a * b for a, b in zip(one, other, strict=True))


def _terms(shape: Shape) -> tuple[float, float, float]:
    return 1.0, float(shape.pictures * shape.pixels), float(shape.pictures * shape.pixels**2)
