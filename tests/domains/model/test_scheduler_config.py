"""What of a scheduler_config.json is refused by name, and what is left alone."""

from typing import Any

import pytest

from domains.model.scheduler_config import FILE, fault_in

REAL: dict[str, Any] = {
    "_class_name": "PNDMScheduler",
    "_diffusers_version": "0.6.0",
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "beta_start": 0.00085,
    "num_train_timesteps": 1000,
    "set_alpha_to_one": False,
    "skip_prk_steps": True,
    "steps_offset": 1,
    "trained_betas": None,
    "clip_sample": False,
}


@pytest.mark.parametrize(
    "config",
    [
        {},
        REAL,
        {"lambda_min_clipped": float("-inf"), "variance_type": None, "solver_p": None, "disable_corrector": []},
        {"sigma_min": None, "sigma_max": 14.6, "use_karras_sigmas": None, "use_beta_sigmas": 0, "thresholding": False},
        {"an option that nothing reads": object(), "algorithm_type": 7},
        {"num_train_timesteps": 2, "trained_betas": [0.1, 0.2]},
    ],
)
def test_what_models_ship_with_is_possible(config: dict[str, Any]) -> None:
    assert fault_in(config) is None


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("beta_schedule", "cosine-ish"),
        ("beta_schedule", None),
        ("timestep_spacing", "x"),
        ("solver_type", "rk4"),
        ("beta_start", "0.1"),
        ("beta_start", float("nan")),
        ("beta_start", -1.0),
        ("beta_end", 2.0),
        ("beta_end", True),
        ("num_train_timesteps", "1000"),
        ("num_train_timesteps", 0),
        ("num_train_timesteps", 10**9),
        ("num_train_timesteps", 10.0),
        ("steps_offset", -5),
        ("steps_offset", "a"),
        ("trained_betas", "x"),
        ("trained_betas", [0.1]),
        ("trained_betas", ["x"] * 1000),
        ("interpolation_type", "z"),
        ("final_sigmas_type", ["zero"]),
        ("lambda_min_clipped", "a"),
        ("lambda_min_clipped", float("nan")),
        ("variance_type", "learned_range"),
        ("solver_order", 17),
        ("solver_p", {"a": 1}),
        ("disable_corrector", "a"),
        ("sigma_min", "a"),
        ("clip_sample_range", "a"),
        ("clip_sample", "yes"),
        ("use_karras_sigmas", "no"),
        ("prediction_type", "flow_prediction"),
        ("prediction_type", ["epsilon"]),
    ],
)
def test_an_impossible_value_is_named_with_file_and_field(name: str, value: Any) -> None:
    fault = fault_in(REAL | {name: value})
    assert fault is not None
    assert fault.field == name
    assert FILE in fault.message
    assert name in fault.message
    assert len(fault.message) < 400


RANGES: dict[str, tuple[float, float]] = {
    "num_train_timesteps": (1, 100_000),
    "steps_offset": (0, 100_000),
    "solver_order": (1, 3),
    "base_image_seq_len": (1, 100_000),
    "max_image_seq_len": (1, 100_000),
    "beta_start": (1e-12, 0.999999),
    "beta_end": (1e-12, 0.999999),
    "shift": (1e-12, 1e12),
    "flow_shift": (1e-12, 1e12),
    "sigma_min": (1e-12, 1e12),
    "sigma_max": (1e-12, 1e12),
    "clip_sample_range": (1e-12, 1e12),
    "sample_max_value": (1e-12, 1e12),
    "dynamic_thresholding_ratio": (0, 1),
    "base_shift": (-100, 100),
    "max_shift": (-100, 100),
    "shift_terminal": (0, 0.999),
}


@pytest.mark.parametrize("name", RANGES)
def test_a_number_is_possible_up_to_its_limits_and_not_beyond(name: str) -> None:
    low, high = RANGES[name]
    beyond = (low - 1, high + 1) if isinstance(low, int) and isinstance(high, int) else (low - 1e-11, high * 1.00001)
    assert [fault_in({name: value}) for value in (low, high)] == [None, None]
    assert [fault is not None and fault.field for fault in map(fault_in, ({name: value} for value in beyond))] == [
        name
    ] * 2
