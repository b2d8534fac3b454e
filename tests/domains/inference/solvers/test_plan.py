"""The table that a sampler, a model's config and a request give."""

import math
from collections.abc import Callable, Iterator
from typing import Any

import msgspec
import pytest
import torch
from torch import Tensor

from domains.errors import ErrorReason, FailedPrecondition, InvalidRequest
from domains.inference.generation import Generation, Sampling
from domains.inference.on_device.solver_state import SolverState
from domains.inference.on_device.solver_step import follow
from domains.inference.resolution.resolve import resolve
from domains.inference.samplers import SAMPLERS, most_steps
from domains.inference.solvers.level import Level
from domains.inference.solvers.line import clean_of, noise_of
from domains.inference.solvers.plan import Plan, plan, try_config
from domains.model.model import Model, ModelState

CONFIG = {
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "prediction_type": "v_prediction",
    "steps_offset": 1,
}


def a_plan(name: str, schedule: str = "normal", *, steps: int = 9, eta: float = 0.0, **config: object) -> Plan:
    return plan(name, CONFIG | config, sigma_schedule=schedule, steps=steps, eta=eta)


def timesteps(plan: Plan) -> list[float]:
    return [line.timestep for line in plan.lines]


def states(plan: Plan, output: Callable[[Tensor], Tensor]) -> Iterator[SolverState]:
    """The state after each line, without new noise."""
    state = SolverState(torch.ones(1, 4, 1, 1) * plan.initial_scale, plan.lines)
    for _ in plan.lines:
        follow([state], [output(state.latents)], [torch.zeros_like(state.latents)])
        yield state


def fits(name: str, steps: int) -> bool:
    return steps <= (SAMPLERS[name].most_steps or steps)


WAYS = [(name, schedule) for name, one in SAMPLERS.items() for schedule in one.sigma_schedules]


@pytest.mark.parametrize(("name", "schedule"), WAYS)
def test_every_sampler_walks_as_many_steps_as_asked(name: str, schedule: str) -> None:
    asked = [steps for steps in (1, 2, 7, 1000) if fits(name, steps)]
    plans = [a_plan(name, schedule, steps=steps) for steps in asked]
    assert [walked.steps for walked in plans] == asked
    assert [sum(line.ends_step for line in walked.lines) for walked in plans] == asked


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction", "sample", "flow"])
def test_clean_latents_and_noise_come_back_from_each_prediction(prediction: str) -> None:
    clean, noise, sigma = 2.0, -3.0, 0.6
    alpha = 1 - sigma if prediction == "flow" else 0.8
    output = {
        "epsilon": noise,
        "v_prediction": alpha * noise - sigma * clean,
        "sample": clean,
        "flow": noise - clean,
    }[prediction]
    level = Level(timestep=500.0, alpha=alpha, sigma=sigma)
    for mix, expected in ((clean_of(level, prediction), clean), (noise_of(level, prediction), noise)):
        assert mix.latents * (alpha * clean + sigma * noise) + mix.output * output == pytest.approx(expected)


def test_without_noise_the_signal_is_infinite_and_without_signal_it_is_minus_infinite() -> None:
    assert Level(timestep=0.0, alpha=1.0, sigma=0.0).log_snr == math.inf
    assert Level(timestep=999.0, alpha=0.0, sigma=1.0).log_snr == -math.inf
    assert Level(timestep=999.0, alpha=0.0, sigma=1.0).ratio == math.inf
    assert Level(timestep=9.0, alpha=0.6, sigma=0.8).log_snr == pytest.approx(math.log(0.75))


SPACINGS = [(spacing, offset) for spacing in ("leading", "trailing", "linspace") for offset in (0, 10)]


@pytest.mark.parametrize("name", SAMPLERS)
def test_every_number_of_steps_is_walked_with_every_spacing_and_offset(name: str) -> None:
    asked = [(spacing, offset, steps) for spacing, offset in SPACINGS for steps in (1, 84, 999) if fits(name, steps)]
    assert asked == [
        (spacing, offset, a_plan(name, steps=steps, timestep_spacing=spacing, steps_offset=offset).steps)
        for spacing, offset, steps in asked
    ]


@pytest.mark.parametrize("name", SAMPLERS)
def test_many_steps_end_in_numbers_with_every_spacing_and_offset(name: str) -> None:
    steps = SAMPLERS[name].most_steps or 200

    def in_numbers(spacing: str, offset: int) -> bool:
        found = a_plan(name, steps=steps, timestep_spacing=spacing, steps_offset=offset)
        return all(
            state.clean is not None and bool((torch.isfinite(state.latents) & torch.isfinite(state.clean)).all())
            for state in states(found, lambda latents: latents / 10)
        )

    assert [one for one in SPACINGS if not in_numbers(*one)] == []


BOUNDED = [name for name, one in SAMPLERS.items() if one.trained_steps_only and not one.most_steps]


@pytest.mark.parametrize("name", BOUNDED)
def test_more_steps_than_the_model_was_trained_with_are_refused_with_the_range(name: str) -> None:
    assert a_plan(name, steps=50, num_train_timesteps=50).steps == 50
    with pytest.raises(InvalidRequest) as refused:
        a_plan(name, steps=51, num_train_timesteps=50)
    (violation,) = refused.value.violations
    assert (violation.field, violation.allowed) == ("generation.sampling.steps", "1..50")


def test_the_models_own_spacing_counts_where_it_can_be_walked() -> None:
    ends = {spacing: timesteps(a_plan("ddim", timestep_spacing=spacing))[0] for spacing in ("leading", "trailing")}
    assert ends == {"leading": 889, "trailing": 999}


@pytest.mark.parametrize("change", [{"use_beta_sigmas": True}, {"clip_sample": True}, {}], ids=str)
def test_a_config_that_samplers_can_use_passes_the_trial(change: dict[str, Any]) -> None:
    try_config(CONFIG | change)


@pytest.mark.parametrize(
    "change",
    [
        {"thresholding": True},
        {"beta_schedule": "x"},
        {"solver_type": "x"},
        {"beta_start": "a"},
        {"flow_shift": 0},
        {"final_sigmas_type": 1},
    ],
    ids=str,
)
def test_a_config_that_no_sampler_can_use_fails_the_trial_by_name(change: dict[str, Any]) -> None:
    with pytest.raises(FailedPrecondition) as refused:
        try_config(CONFIG | change)
    assert refused.value.reason is ErrorReason.MODEL_INCOMPATIBLE
    assert (refused.value.facts["file"], refused.value.facts["field"]) == ("scheduler/scheduler_config.json", *change)


@pytest.mark.parametrize("change", [{"trained_betas": [0.9999] * 1000}], ids=["all"])
def test_noise_that_no_number_expresses_is_incompatible(change: dict[str, Any]) -> None:
    with pytest.raises(FailedPrecondition) as refused:
        try_config(CONFIG | {"prediction_type": "epsilon"} | change)
    assert (refused.value.reason, refused.value.facts["file"]) == (
        ErrorReason.MODEL_INCOMPATIBLE,
        "scheduler/scheduler_config.json",
    )


@pytest.mark.parametrize(("name", "schedule"), WAYS)
def test_a_perfect_denoiser_is_led_to_the_clean_latents(name: str, schedule: str) -> None:
    """The output that names the true x0 at every step must end at it, and every estimate must be it."""
    clean = torch.full((1, 4, 1, 1), 0.7)
    last = torch.zeros_like(clean)
    for state in states(a_plan(name, schedule, steps=12, prediction_type="sample"), lambda _: clean):
        assert state.clean is not None
        assert torch.allclose(state.clean, clean, atol=1e-4)
        last = state.latents
    # The last level of some is the training's first, which has a little noise in it.
    assert torch.allclose(last, clean, atol=0.1)


@pytest.mark.parametrize("name", [name for name, one in SAMPLERS.items() if len(one.sigma_schedules) > 1])
def test_each_sigma_schedule_spaces_the_steps_otherwise(name: str) -> None:
    walks = [tuple(timesteps(a_plan(name, schedule, steps=8))) for schedule in SAMPLERS[name].sigma_schedules]
    assert len(set(walks)) == len(walks)


@pytest.mark.parametrize("flag", ["use_karras_sigmas", "use_exponential_sigmas", "use_beta_sigmas"])
def test_the_schedule_asked_for_counts_and_not_the_models(flag: str) -> None:
    config: dict[str, Any] = {flag: True}
    plain, other = a_plan("euler"), a_plan("euler", **config)
    assert plain == other
    assert a_plan("euler", "karras", **config) == a_plan("euler", "karras")


@pytest.mark.parametrize("name", [name for name, one in SAMPLERS.items() if "karras" not in one.sigma_schedules])
def test_a_schedule_is_refused_where_the_sampler_does_not_take_it(name: str) -> None:
    with pytest.raises(InvalidRequest, match=name) as refused:
        a_plan(name, "karras")
    assert refused.value.reason is ErrorReason.UNSUPPORTED_COMBINATION


@pytest.mark.parametrize(
    ("steps", "visited", "terms"), [(14, None, 1), (15, None, 2), (18, range(4, 18), 2), (13, range(3, 13), 1)]
)
@pytest.mark.parametrize("name", ["dpmpp_2m", "deis"])
def test_a_short_walk_ends_with_the_first_order_and_steps_that_were_left_out_count(
    name: str, steps: int, visited: range | None, terms: int
) -> None:
    config = CONFIG | {"final_sigmas_type": "sigma_min"}
    last = plan(name, config, sigma_schedule="normal", steps=steps, eta=0.0, visited=visited).lines[-1]
    assert sum(map(bool, last.following.kept)) == terms


def test_a_part_without_steps_has_no_lines_and_the_scale_where_it_lies() -> None:
    none, rest = (
        plan("euler", CONFIG, sigma_schedule="normal", steps=9, eta=0.0, visited=range(4, end)) for end in (4, 9)
    )
    assert (none.lines, none.initial_scale) == ((), rest.initial_scale)
    assert rest.lines


def test_an_unknown_sampler_is_refused_with_the_known_ones() -> None:
    with pytest.raises(InvalidRequest, match="there is no sampler 'none'") as refused:
        a_plan("none")
    (violation,) = refused.value.violations
    assert (violation.field, violation.allowed) == ("generation.sampling.sampler", ", ".join(SAMPLERS))


def test_a_model_that_predicts_something_else_is_incompatible() -> None:
    with pytest.raises(FailedPrecondition, match="flow"):
        a_plan("euler", prediction_type="flow_prediction")


@pytest.mark.parametrize("name", [name for name, one in SAMPLERS.items() if not one.eta])
def test_eta_changes_nothing_where_it_is_not_read(name: str) -> None:
    plain, with_eta = (a_plan(name, steps=3, eta=eta) for eta in (0.0, 1.0))
    assert plain == with_eta


@pytest.mark.parametrize("name", SAMPLERS)
def test_the_table_of_samplers_says_what_the_lines_do(name: str) -> None:
    entry, found = SAMPLERS[name], a_plan(name, steps=6, eta=0.5)
    assert any(line.following.noise for line in found.lines) == (entry.stochastic or entry.eta)
    assert entry.evaluations_per_step == round(len(found.lines) / found.steps)


@pytest.mark.parametrize("name", [name for name, one in SAMPLERS.items() if one.most_steps])
def test_a_sampler_of_distilled_models_has_a_limit_of_its_own(name: str) -> None:
    assert most_steps(SCANNED, name, "normal") == SAMPLERS[name].most_steps == 50
    with pytest.raises(InvalidRequest) as refused:
        a_plan(name, steps=51)
    assert refused.value.violations[0].allowed == "1..50"


SCANNED = Model(
    id="m",
    display_name="M",
    family="sd1",
    folder="/m",
    components=(),
    size_bytes=1,
    sha256="0" * 64,
    state=ModelState.AVAILABLE,
    native_width_px=64,
    native_height_px=64,
)


@pytest.mark.parametrize(("sampler", "schedule"), WAYS)
def test_what_a_sampler_would_refuse_is_refused_before_the_job_waits(sampler: str, schedule: str) -> None:
    model = msgspec.structs.replace(SCANNED, train_steps=30)
    asked = Generation(prompt="an owl", sampling=Sampling(sampler=sampler, sigma_schedule=schedule, steps=31))
    config = {"num_train_timesteps": 30}
    try:
        plan(sampler, config, sigma_schedule=schedule, steps=31, eta=None)
        refused = None
    except InvalidRequest as error:
        refused = error
    if refused is None:
        assert resolve(asked, model).steps == 31
    else:
        with pytest.raises(InvalidRequest) as told:
            resolve(asked, model)
        assert told.value.violations == refused.violations
        assert (told.value.reason, told.value.violations[0].allowed) == (refused.reason, "1..30")
    assert resolve(asked, SCANNED).steps == 31, "the scan does not know the range"
