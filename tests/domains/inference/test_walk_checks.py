"""Faults of a request's own noise levels and solver options, each with its place."""

from typing import Any

import pytest
from msgspec.structs import replace

from domains.errors import ErrorReason, InvalidRequest
from domains.inference.generation import Generation, Sampling
from domains.inference.own_walk import OwnWalk
from domains.inference.resolution.resolve import resolve
from domains.inference.samplers import SAMPLERS
from tests.domains.inference.on_device.requests import embedded_model

MODEL = replace(embedded_model(), train_steps=1000)
MODELS = {
    "noise": MODEL,
    "flow": replace(MODEL, family="flux1", prediction_type="flow"),
    "short": replace(MODEL, train_steps=100),
}


def asked(own: dict[str, Any], sampler: str = "euler", **sampling: Any) -> Generation:
    return Generation(prompt="", sampling=Sampling(sampler=sampler, own=OwnWalk(**own), **sampling))


def refused(generation: Generation, model: Any = MODEL) -> tuple[str, list[str]]:
    with pytest.raises(InvalidRequest) as told:
        resolve(generation, model)
    return str(told.value.reason), [one.field.removeprefix("generation.sampling.") for one in told.value.violations]


INVALID, TOGETHER = str(ErrorReason.INVALID_FIELD), str(ErrorReason.UNSUPPORTED_COMBINATION)
WRONG: list[tuple[dict[str, Any], str]] = [
    ({"sigmas": (9.0,)}, "sigmas"),
    ({"sigmas": (9.0, 9.0, 0.0)}, "sigmas[1]"),
    ({"sigmas": (3.0, 2.0, 2.5, 0.0)}, "sigmas[2]"),
    ({"sigmas": (3.0, float("nan"), 0.0)}, "sigmas[1]"),
    ({"sigmas": (float("inf"), 0.0)}, "sigmas[0]"),
    ({"sigmas": (3.0, -1.0)}, "sigmas[1]"),
    ({"sigmas": (1000.5, 0.0)}, "sigmas[0]"),
    ({"timesteps": (1000, 0)}, "timesteps[0]"),
    ({"timesteps": (5, -1)}, "timesteps[1]"),
    ({"timesteps": (5, 5)}, "timesteps[1]"),
    ({"solver_order": 0}, "solver_order"),
    ({"flow_shift": 0.0}, "flow_shift"),
    ({"timestep_spacing": "wide"}, "timestep_spacing"),
]


@pytest.mark.parametrize(("own", "field"), WRONG, ids=str)
def test_a_wrong_level_or_option_is_refused_by_its_place(own: dict[str, Any], field: str) -> None:
    reason, fields = refused(asked(own))
    assert (reason, fields[0]) == (INVALID, field)


EXCLUDED: list[tuple[dict[str, Any], dict[str, Any], str]] = [
    ({"sigmas": (9.0, 0.0)}, {"steps": 1}, "steps"),
    ({"sigmas": (9.0, 0.0)}, {"sigma_schedule": "karras"}, "sigma_schedule"),
    ({"sigmas": (9.0, 0.0), "timesteps": (9,)}, {}, "timesteps"),
    ({"sigmas": (9.0, 0.0), "timestep_spacing": "trailing"}, {}, "timestep_spacing"),
    ({"timesteps": (9,)}, {"steps": 1}, "steps"),
    ({"timesteps": (9,)}, {"sigma_schedule": "karras"}, "sigma_schedule"),
]


@pytest.mark.parametrize(("own", "sampling", "field"), EXCLUDED, ids=str)
def test_what_own_levels_exclude_is_refused_by_its_name(
    own: dict[str, Any], sampling: dict[str, Any], field: str
) -> None:
    assert refused(asked(own, **sampling)) == (TOGETHER, [field])


OPTIONS: dict[str, object] = {
    "sigmas": (9.0, 0.0),
    "timesteps": (9,),
    "timestep_spacing": "trailing",
    "solver_order": 3,
}


@pytest.mark.parametrize("option", OPTIONS)
@pytest.mark.parametrize("sampler", list(SAMPLERS))
def test_a_sampler_reads_the_options_that_it_lists_and_refuses_the_others(sampler: str, option: str) -> None:
    generation = asked({option: OPTIONS[option]}, sampler)
    if option in SAMPLERS[sampler].options:
        assert getattr(resolve(generation, MODEL).own, option) == OPTIONS[option]
    else:
        assert refused(generation) == (TOGETHER, [option])


FOR_OTHERS: list[tuple[dict[str, Any], str, str]] = [
    ({"flow_shift": 2.0}, "noise", "flow_shift"),
    ({"timestep_spacing": "trailing"}, "flow", "timestep_spacing"),
    ({"sigmas": (1.5, 0.0)}, "flow", "sigmas[0]"),
    ({"timesteps": (500, 0)}, "flow", "timesteps[1]"),
    ({"timesteps": (100, 20)}, "short", "timesteps[0]"),
]


@pytest.mark.parametrize(("own", "model", "field"), FOR_OTHERS, ids=str)
def test_what_a_model_cannot_walk_is_refused_by_its_place(own: dict[str, Any], model: str, field: str) -> None:
    assert refused(asked(own), MODELS[model]) == (TOGETHER, [field])


@pytest.mark.parametrize(
    ("own", "model"),
    [({"sigmas": (1.0, 0.0)}, "flow"), ({"timesteps": (500, 1)}, "flow"), ({"timesteps": (99, 0)}, "short")],
    ids=str,
)
def test_what_a_model_just_walks_is_taken(own: dict[str, Any], model: str) -> None:
    (name,) = own
    assert getattr(resolve(asked(own), MODELS[model]).own, name) == own[name]


def test_own_levels_count_the_steps_and_leave_no_schedule() -> None:
    resolved = resolve(asked({"sigmas": (9.0, 3.0, 0.0)}), MODEL)
    assert (resolved.steps, resolved.sigma_schedule) == (2, "")
    assert resolve(asked({"timesteps": (900, 500, 20)}), MODEL).steps == 3
