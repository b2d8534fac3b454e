"""Checks a model's scheduler_config.json: a table lists the allowed values of each option that our samplers read.

Options that no sampler of ours reads are ignored. What the table cannot check shows when the samplers are tried at the
load.
"""

import math
from collections.abc import Callable, Mapping
from typing import Any

import msgspec

FILE = "scheduler/scheduler_config.json"
PREDICTION_TYPES = ("epsilon", "v_prediction", "sample")
"""Allowed prediction types of a denoiser."""
_MAX_TRAIN_STEPS = 100_000
_TRAIN_STEPS = 1000
"""Default of all schedulers of diffusers, for a config that names no number."""


class Fault(msgspec.Struct, frozen=True, kw_only=True):
    """An option that no sampler can work with."""

    field: str
    message: str


def fault_in(config: Mapping[str, Any]) -> Fault | None:
    """The first option with an impossible value; None: all are possible."""
    for name, value in config.items():
        if name in _OPTIONS and not _OPTIONS[name][0](value):
            message = f"{FILE} has {name}={_shown(value)}; {name} is {_OPTIONS[name][1]}"
            return Fault(field=name, message=message)
    betas, steps = config.get("trained_betas"), train_steps_of(config)
    if betas is not None and len(betas) != steps:
        message = f"{FILE} has {len(betas)} trained_betas for num_train_timesteps={steps}; there is one a step"
        return Fault(field="trained_betas", message=message)
    return None


def train_steps_of(config: Mapping[str, Any]) -> int:
    """Number of noise levels at training, from a config without a fault."""
    return config.get("num_train_timesteps", _TRAIN_STEPS)


def is_flow(config: Mapping[str, Any]) -> bool:
    """Whether the scheduler is one for flow models, from a config without a fault."""
    return str(config.get("_class_name", "")).startswith("FlowMatch")


def _shown(value: object) -> str:
    return f"{value!r:.64}" if isinstance(value, str) else f"{value!s:.64}"


def _number(low: float, high: float) -> Callable[[Any], bool]:
    def fits(value: Any) -> bool:
        return isinstance(value, int | float) and not isinstance(value, bool) and low <= value <= high

    return fits


def _whole(low: int, high: int) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, int) and not isinstance(value, bool) and low <= value <= high


def _one_of(*names: str) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, str) and value in names


def _or_null(fits: Callable[[Any], bool]) -> Callable[[Any], bool]:
    return lambda value: value is None or fits(value)


def _list_of(fits: Callable[[Any], bool]) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, list) and all(map(fits, value))


def _learned(value: Any) -> bool:
    return isinstance(value, str) and value.startswith("learned")


_BETA = _number(1e-12, 0.999999)
_POSITIVE = _number(1e-12, 1e12)
_MOST_SHIFT = 100
_SPACINGS = ("linspace", "leading", "trailing")
_BETA_SCHEDULES = ("linear", "scaled_linear", "squaredcos_cap_v2")
_SOLVER_TYPES = ("midpoint", "heun", "logrho", "bh1", "bh2")

_OPTIONS: Mapping[str, tuple[Callable[[Any], bool], str]] = {
    "prediction_type": (_one_of(*PREDICTION_TYPES), f"one of {', '.join(PREDICTION_TYPES)}"),
    "num_train_timesteps": (_whole(1, _MAX_TRAIN_STEPS), f"a whole number, 1..{_MAX_TRAIN_STEPS}"),
    "beta_start": (_BETA, "a number between 0 and 1"),
    "beta_end": (_BETA, "a number between 0 and 1"),
    "beta_schedule": (_one_of(*_BETA_SCHEDULES), f"one of {', '.join(_BETA_SCHEDULES)}"),
    "trained_betas": (_or_null(_list_of(_BETA)), "null or a list of numbers between 0 and 1"),
    "timestep_spacing": (_one_of(*_SPACINGS), f"one of {', '.join(_SPACINGS)}"),
    "timestep_type": (_one_of("discrete", "continuous"), "discrete or continuous"),
    "steps_offset": (_whole(0, _MAX_TRAIN_STEPS), f"a whole number, 0..{_MAX_TRAIN_STEPS}"),
    "interpolation_type": (_one_of("linear", "log_linear"), "linear or log_linear"),
    "final_sigmas_type": (_one_of("zero", "sigma_min"), "zero or sigma_min"),
    "solver_type": (_one_of(*_SOLVER_TYPES), f"one of {', '.join(_SOLVER_TYPES)}"),
    "solver_order": (_whole(1, 3), "1, 2 or 3"),
    "solver_p": (lambda value: value is None, "null: no sampler here takes another solver"),
    "disable_corrector": (_list_of(_whole(0, _MAX_TRAIN_STEPS)), "a list of steps"),
    "sigma_min": (_or_null(_POSITIVE), "null or a number above 0"),
    "sigma_max": (_or_null(_POSITIVE), "null or a number above 0"),
    "lambda_min_clipped": (_number(-math.inf, math.inf), "a number"),
    "variance_type": (lambda value: not _learned(value), "not learned: the denoiser has no such outputs"),
    "clip_sample_range": (_POSITIVE, "a number above 0"),
    "sample_max_value": (_POSITIVE, "a number above 0"),
    "dynamic_thresholding_ratio": (_number(0, 1), "a number, 0..1"),
    "shift": (_POSITIVE, "a number above 0"),
    "base_shift": (_number(-_MOST_SHIFT, _MOST_SHIFT), f"a number, -{_MOST_SHIFT}..{_MOST_SHIFT}"),
    "max_shift": (_number(-_MOST_SHIFT, _MOST_SHIFT), f"a number, -{_MOST_SHIFT}..{_MOST_SHIFT}"),
    "base_image_seq_len": (_whole(1, _MAX_TRAIN_STEPS), f"a whole number, 1..{_MAX_TRAIN_STEPS}"),
    "max_image_seq_len": (_whole(1, _MAX_TRAIN_STEPS), f"a whole number, 1..{_MAX_TRAIN_STEPS}"),
    "time_shift_type": (_one_of("exponential", "linear"), "exponential or linear"),
    "shift_terminal": (_or_null(_number(0, 0.999)), "null or a number, 0..0.999"),
    "invert_sigmas": (lambda value: not value, "false: no sampler here walks toward noise"),
    "stochastic_sampling": (lambda value: not value, "false: no sampler here draws noise for a flow model"),
    "flow_shift": (_POSITIVE, "a number above 0"),
    "thresholding": (lambda value: not value, "false: it is for models of pixels, and these are of latents"),
    **{
        name: (lambda value: value is None or value in (True, False), "true or false")
        for name in (
            *("clip_sample", "set_alpha_to_one", "rescale_betas_zero_snr", "predict_x0"),
            *("lower_order_final", "euler_at_final", "use_karras_sigmas", "use_exponential_sigmas", "use_beta_sigmas"),
            *("use_lu_lambdas", "use_flow_sigmas", "use_dynamic_shifting"),
        )
    },
}
"""Option → test of a value, and a description of allowed values."""
