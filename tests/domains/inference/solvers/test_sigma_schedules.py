"""The noise levels that schedules visit: published figures, and what a formula says of itself."""

import math

import numpy as np
import pytest

from domains.inference.solvers.level import Level
from domains.inference.solvers.sigma_schedules import FREE_SCHEDULES, SCHEDULES
from domains.inference.solvers.spacing import Grid
from domains.inference.solvers.table import Last
from domains.inference.solvers.trained_noise import TrainedNoise
from domains.inference.solvers.trained_walk import end_level
from tests.domains.inference.solvers.walking import SD1

NOISE = TrainedNoise(SD1)
LOW, HIGH = 0.03, 14.6
ALIGNED = (14.615, 6.475, 3.861, 2.697, 1.886, 1.396, 0.963, 0.652, 0.399, 0.152)
"""Sabour et al. 2024, Stable Diffusion 1.5: ten steps, which end at 0.029."""


def visited(name: str, steps: int) -> list[float]:
    return [float(each) for each in SCHEDULES[name](steps, LOW, HIGH, NOISE)]


def test_ten_aligned_steps_are_those_that_were_published() -> None:
    assert visited("align_your_steps", 10) == pytest.approx(ALIGNED)
    twenty = visited("align_your_steps", 20)
    assert twenty[::2] == pytest.approx(ALIGNED)
    assert twenty[1] == pytest.approx((14.615 * 6.475) ** 0.5), "interpolated in the logarithm"
    assert twenty[-1] == pytest.approx((0.152 * 0.029) ** 0.5)


@pytest.mark.parametrize("steps", [2, 3, 8, 11])
def test_a_fortieth_goes_in_half_of_the_steps_linearly_and_the_rest_quadratically(steps: int) -> None:
    gone = [1 - each / HIGH for each in visited("linear_quadratic", steps)]
    half = steps // 2
    assert gone[: half + 1] == pytest.approx([0.025 * at / half for at in range(half + 1)])
    rest = [*gone[half:], 1.0]
    bends = np.diff(rest, 2)
    assert bends == pytest.approx([bends[0]] * len(bends) if len(bends) else [])
    if steps > 3:
        # At the joint the line goes on: the parabola's slope there is the line's.
        assert rest[1] - rest[0] - bends[0] / 2 == pytest.approx(0.025 / half)


def test_one_step_begins_at_the_highest_level() -> None:
    for name in ("linear_quadratic", "karras", "exponential", "simple", "sgm_uniform"):
        (only,) = visited(name, 1)
        highest = HIGH if name not in ("simple",) else float(NOISE.ratios[-1])
        assert only == pytest.approx(highest, rel=2e-3)


@pytest.mark.parametrize("name", FREE_SCHEDULES)
def test_schedules_that_need_no_trained_levels_go_from_the_highest_to_the_lowest(name: str) -> None:
    found = visited(name, 9)
    assert (found[0], found[-1]) == (pytest.approx(HIGH), pytest.approx(LOW))
    assert found == pytest.approx([float(each) for each in FREE_SCHEDULES[name](9, LOW, HIGH)])


def test_equal_steps_are_in_the_seventh_root_and_in_the_logarithm() -> None:
    assert np.diff(np.array(visited("karras", 9)) ** (1 / 7)) == pytest.approx(
        [(LOW ** (1 / 7) - HIGH ** (1 / 7)) / 8] * 8
    )
    assert np.diff(np.log(visited("exponential", 9))) == pytest.approx([np.log(LOW / HIGH) / 8] * 8)


def test_quantiles_of_the_beta_distribution_are_symmetric_and_have_their_mass_below() -> None:
    shares = [(each - LOW) / (HIGH - LOW) for each in visited("beta", 11)]
    assert shares[5] == pytest.approx(0.5)
    assert [one + other for one, other in zip(shares, shares[::-1], strict=True)] == pytest.approx([1.0] * 11)
    for place in range(5):
        assert _share_below(shares[10 - place]) == pytest.approx(place / 10, abs=1e-9)
    assert (shares[0], shares[10]) == (pytest.approx(1.0), pytest.approx(0.0))


def _share_below(end: float) -> float:
    """The mass of Beta(0.6, 0.6) below `end`, at most 1/2, by its power series."""
    total, factor = 0.0, 1.0
    for power in range(60):
        total += factor * end**power / (0.6 + power)
        factor *= (0.4 + power) / (power + 1)
    return end**0.6 * total * math.gamma(1.2) / math.gamma(0.6) ** 2


def test_simple_visits_every_so_many_trained_levels() -> None:
    assert visited("simple", 4) == [float(NOISE.ratios[at]) for at in (-1, -251, -501, -751)]
    assert visited("simple", 3) == [float(NOISE.ratios[at]) for at in (-1, -334, -667)]


def test_uniform_steps_are_equal_in_the_timestep_and_leave_the_last_out() -> None:
    high, low = float(NOISE.ratios[-1]), float(NOISE.ratios[0])
    found = SCHEDULES["sgm_uniform"](3, low, high, NOISE)
    assert [NOISE.timestep_of(float(each)) for each in found] == pytest.approx([999, 666, 333], abs=1e-6)


def test_betas_are_those_that_the_config_or_its_class_says() -> None:
    for name, first, last in (
        ("DDPMScheduler", 0.0001, 0.02),
        ("HeunDiscreteScheduler", 0.00085, 0.012),
        ("LCMScheduler", 0.00085, 0.012),
    ):
        noise = TrainedNoise({"_class_name": name})
        assert len(noise) == 1000
        assert noise.sigmas[0] ** 2 == pytest.approx(first)
        assert 1 - noise.alphas[-1] ** 2 / noise.alphas[-2] ** 2 == pytest.approx(last)
    listed = TrainedNoise({"trained_betas": [0.1, 0.2]})
    assert [float(each) for each in listed.alphas**2] == pytest.approx([0.9, 0.72])


def test_levels_without_any_signal_have_the_least_share_that_a_half_can_hold() -> None:
    noise = TrainedNoise({**SD1, "rescale_betas_zero_snr": True})
    assert (float(noise.alphas[-1]), float(noise.sigmas[-1])) == (0.0, 1.0)
    assert float(noise.ratios[-1]) == pytest.approx(2**12, rel=1e-3), "the root of 2^24"
    cosine = TrainedNoise({"beta_schedule": "squaredcos_cap_v2"})
    assert 1 - cosine.alphas[-1] ** 2 / cosine.alphas[-2] ** 2 == pytest.approx(0.999)


def test_levels_between_two_trained_ones_are_interpolated() -> None:
    level = NOISE.at_timestep(500)
    assert NOISE.timestep_of(level.ratio) == pytest.approx(500)
    between = NOISE.at_fraction(500.5)
    assert between.ratio == pytest.approx((NOISE.ratios[500] + NOISE.ratios[501]) / 2)
    assert (between.timestep, NOISE.at_ratio(level.ratio, round).timestep) == (500.5, 500)
    assert NOISE.timestep_of(0.0) == 0.0


@pytest.mark.parametrize(
    ("last", "config", "noisy"),
    [
        (Last.CLEAN, {}, False),
        (Last.TRAINED, {}, True),
        (Last.CONFIGURED, {}, False),
        (Last.CONFIGURED, {"final_sigmas_type": "sigma_min"}, True),
        (Last.CONFIGURED, {"final_sigmas_type": "zero"}, False),
        (Last.ALPHA_ONE, {}, False),
        (Last.ALPHA_ONE, {"set_alpha_to_one": False}, True),
        (Last.ALPHA_FIRST, {}, True),
        (Last.ALPHA_FIRST, {"set_alpha_to_one": True}, False),
    ],
)
def test_a_walk_ends_without_noise_or_at_the_first_trained_level(
    last: Last, config: dict[str, object], noisy: bool
) -> None:
    first = NOISE.at_timestep(0)
    assert end_level(Grid.CHAIN, last, NOISE, config) == (first if noisy else Level(1.0, 0.0, 0.0))
    by_points = Level(1.0, first.ratio, 0.0)
    assert end_level(Grid.POINTS, last, NOISE, config) == (by_points if noisy else Level(1.0, 0.0, 0.0))
