"""The time of work grows as that of the sizes that were measured."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from domains.processing.devices.pixel_costs import REACH, Costs, Shape, fitted, seconds_for

SIZES = (64, 256, 512)
"""Edges of the pictures that are measured."""
ASKED = tuple(Shape(count, edge**2) for count in (1, 2, 8) for edge in (128, 384, 768))

COSTS = {
    "launches, layers and attention": Costs(0.02, 2e-7, 1e-13),
    "launches alone": Costs(0.5, 1e-12, 0.0),
    "attention alone": Costs(0.0, 1e-12, 3e-12),
    "layers and attention": Costs(0.0, 4e-7, 5e-13),
}


def measured(costs: Costs, *counts: int) -> dict[Shape, float]:
    every = (Shape(count, edge**2) for count in counts for edge in SIZES)
    return {shape: costs.seconds(shape) for shape in every}


@pytest.mark.parametrize("costs", COSTS.values(), ids=list(COSTS))
@pytest.mark.parametrize("shape", ASKED, ids=str)
def test_three_sizes_tell_all_others(costs: Costs, shape: Shape) -> None:
    assert seconds_for(shape, measured(costs, 1)) == pytest.approx(costs.seconds(shape), rel=0.02)


def test_a_size_that_was_measured_has_its_own_time() -> None:
    known = measured(COSTS["launches, layers and attention"], 1, 2)
    odd = Shape(2, 256**2)
    known[odd] *= 3
    assert seconds_for(odd, known) == pytest.approx(known[odd])


@pytest.mark.parametrize("shape", ASKED, ids=str)
def test_one_size_grows_with_its_pixels_alone(shape: Shape) -> None:
    known = {Shape(1, 64**2): 2.0}
    assert seconds_for(shape, known) == pytest.approx(2.0 * shape.pictures * shape.pixels / 64**2)


def test_rows_of_one_size_tell_what_a_forward_costs_beside_them() -> None:
    known = {Shape(2, 4096): 1.2, Shape(4, 4096): 2.2}
    assert fitted(known) == pytest.approx(Costs(0.2, 0.5 / 4096, 0.0))
    assert seconds_for(Shape(8, 4096), known) == pytest.approx(4.2)


@given(
    st.dictionaries(
        st.builds(Shape, st.integers(1, 64), st.integers(1, 2**24)), st.floats(1e-6, 1e4), min_size=1, max_size=32
    ),
    st.builds(Shape, st.integers(1, 64), st.integers(1, 2**24)),
)
def test_any_times_give_a_time(known: dict[Shape, float], shape: Shape) -> None:
    costs = fitted(known)
    assert min(costs) >= 0
    assert max(costs) > 0
    assert 0 < seconds_for(shape, known) < float("inf")


@given(st.lists(st.floats(0.8, 1.25), min_size=6, max_size=6), st.sampled_from([64, 128, 256, 384, 512]))
def test_times_that_vary_by_a_quarter_move_estimates_between_them_by_half_at_most(
    factors: list[float], edge: int
) -> None:
    costs = COSTS["launches, layers and attention"]
    exact = measured(costs, 1, 2)
    noisy = {one: took * factor for (one, took), factor in zip(exact.items(), factors, strict=True)}
    assert seconds_for(Shape(1, edge**2), noisy) == pytest.approx(costs.seconds(Shape(1, edge**2)), rel=0.5)


@pytest.mark.parametrize("noise", [0.6, 1.0, 1.8])
def test_noise_of_small_sizes_does_not_grow_without_bound_beyond_them(noise: float) -> None:
    measured = {Shape(2, 64): 0.01, Shape(2, 256): 0.04 * noise}
    ends = [seconds_for(Shape(2, 256 * times), measured) for times in (REACH, 64 * REACH)]
    assert ends[1] == pytest.approx(64 * ends[0])
    # Without noise it is 10 s; the fit through both alone would say up to 2,800.
    assert ends[1] < 60
