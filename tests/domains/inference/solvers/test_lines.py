"""Lines of solvers for small walks, by the formulas of their papers."""

import math
from itertools import pairwise

import pytest

from domains.inference.solvers.dpm import dpmpp_2m, dpmpp_2m_sde
from domains.inference.solvers.level import Level, at_ratio, in_flow
from domains.inference.solvers.line import Mix
from domains.inference.solvers.lms import lms
from domains.inference.solvers.trained_noise import TrainedNoise
from domains.inference.solvers.trained_walk import _last_timestep as last_timestep  # pyright: ignore[reportPrivateUsage]
from domains.inference.solvers.walk import Options, Step, Walk


def walk(*levels: Level, prediction: str, heun: bool = False) -> Walk:
    """Through these levels."""
    return Walk(
        steps=tuple(Step(begin, end) for begin, end in pairwise(levels)),
        prediction=prediction,
        initial_scale=1.0,
        between=lambda ratio: at_ratio(ratio, 0.0),
        at_timestep=lambda timestep: levels[0],
        options=Options(lower_order_final=False, heun=heun),
    )


TRAINED = [at_ratio(ratio, timestep) for ratio, timestep in ((8.0, 900.0), (3.0, 600.0), (1.0, 300.0), (0.25, 100.0))]


@pytest.mark.parametrize("heun", [False, True])
def test_the_second_term_of_dpm_solver_has_the_form_of_its_option(heun: bool) -> None:
    """Lu et al. 2022b, algorithm 2, and the form that diffusers names heun."""
    lines = [*dpmpp_2m(walk(*TRAINED, prediction="epsilon", heun=heun))]
    before, begin, end = TRAINED[1:]
    h = end.log_snr - begin.log_snr
    r0 = (begin.log_snr - before.log_snr) / h
    first = -end.alpha * math.expm1(-h)
    second = end.alpha * (math.expm1(-h) / h + 1) if heun else first / 2
    assert lines[2].following.latents == pytest.approx(end.sigma / begin.sigma)
    assert lines[2].following.kept == pytest.approx((first + second / r0, -second / r0))
    assert lines[2].following.noise == 0
    assert [line.timestep for line in lines] == [900.0, 600.0, 300.0]
    assert [len(line.following.kept) for line in lines] == [1, 2, 2]


@pytest.mark.parametrize("heun", [False, True])
def test_new_noise_replaces_what_dpm_solver_takes_away(heun: bool) -> None:
    lines = [*dpmpp_2m_sde(walk(*TRAINED, prediction="epsilon", heun=heun))]
    before, begin, end = TRAINED[1:]
    h = end.log_snr - begin.log_snr
    r0 = (begin.log_snr - before.log_snr) / h
    first = -end.alpha * math.expm1(-2 * h)
    second = end.alpha * (math.expm1(-2 * h) / (2 * h) + 1) if heun else first / 2
    assert lines[2].following.latents == pytest.approx(end.sigma / begin.sigma * math.exp(-h))
    assert lines[2].following.kept == pytest.approx((first + second / r0, -second / r0))
    assert lines[2].following.noise == pytest.approx(end.sigma * math.sqrt(1 - math.exp(-2 * h)))


def test_lms_of_a_flow_integrates_the_output_over_sigma() -> None:
    levels = [in_flow(sigma, 1000 * sigma) for sigma in (1.0, 0.75, 0.5)]
    first, second = lms(walk(*levels, prediction="flow"))
    for line in (first, second):
        assert (line.kept, line.following.latents) == (Mix(0.0, 1.0), 1.0)
    assert first.following.kept == pytest.approx((-0.25,))
    assert second.following.kept == pytest.approx((-0.375, 0.125))  # Adams and Bashforth


def test_lms_of_a_trained_model_integrates_the_noise_over_the_ratio() -> None:
    first, _ = lms(walk(*TRAINED[:3], prediction="epsilon"))
    begin, end = TRAINED[:2]
    assert (first.timestep, first.kept) == (900.0, Mix(0.0, 1.0))
    assert first.following.latents == pytest.approx(end.alpha / begin.alpha)
    assert first.following.kept == pytest.approx((end.alpha * (3.0 - 8.0),))


def test_timesteps_are_clipped_where_their_snr_is_below_the_least() -> None:
    noise = TrainedNoise({"num_train_timesteps": 10, "beta_start": 0.1, "beta_end": 0.5})
    snrs = [noise.at_timestep(place).log_snr for place in range(10)]
    assert last_timestep(noise, {}) == 10
    for kept in range(1, 11):
        assert last_timestep(noise, {"lambda_min_clipped": snrs[kept - 1] - 1e-9}) == kept
        assert last_timestep(noise, {"lambda_min_clipped": snrs[kept - 1] + 1e-9}) == kept - 1
