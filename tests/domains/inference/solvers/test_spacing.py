"""The trained timesteps that a walk visits, worked out by hand for a model of ten."""

import math

import pytest

from domains.inference.solvers.lms import integrals
from domains.inference.solvers.spacing import Grid, timesteps


@pytest.mark.parametrize(
    ("grid", "spacing", "expected"),
    [
        (Grid.DISTILLED, "leading", [9, 6, 3]),
        (Grid.POINTS, "linspace", [9, 4.5, 0]),
        (Grid.INTERVALS, "linspace", [7, 5, 2]),
        (Grid.CHAIN, "linspace", [9, 4, 0]),
        (Grid.TRAINED, "linspace", [9, 4, 0]),
        (Grid.INTERVALS, "leading", [7, 5, 3]),
        (Grid.CHAIN, "leading", [7, 4, 1]),
        (Grid.POINTS, "leading", [7, 4, 1]),
        (Grid.INTERVALS, "trailing", [7, 4, 0]),
        (Grid.TRAINED, "trailing", [9, 6, 2]),
    ],
)
def test_three_of_ten_timesteps_of_which_two_are_clipped(grid: Grid, spacing: str, expected: list[float]) -> None:
    assert timesteps(grid, spacing, offset=1, steps=3, trained=10, last=8).tolist() == expected


def test_a_distilled_model_knows_fifty_timesteps() -> None:
    found = timesteps(Grid.DISTILLED, "leading", offset=1, steps=4, trained=1000, last=1000)
    assert found.tolist() == [999, 759, 499, 259]
    every = timesteps(Grid.DISTILLED, "leading", offset=0, steps=50, trained=1000, last=1000)
    assert every.tolist() == [*range(999, 0, -20)]


@pytest.mark.parametrize("places", [(2.0,), (2.0, 3.0), (2.0, 3.0, 5.0), (2.0, 3.0, 5.0, 6.5)])
def test_integrals_are_exact_for_each_power_that_the_places_fix(
    places: tuple[float, ...],
) -> None:
    weights = integrals(places, 2.0, 0.5)
    for power in range(len(places)):
        exact = (0.5 ** (power + 1) - 2.0 ** (power + 1)) / (power + 1)
        found = sum(weight * place**power for weight, place in zip(weights, places, strict=True))
        assert math.isclose(found, exact, rel_tol=1e-9, abs_tol=1e-9)
