"""Which sigmas a flow model visits, from its scheduler_config.json (names and defaults of diffusers' FlowMatchEuler)."""

import math
from collections.abc import Mapping
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from domains.inference.solvers.sigma_schedules import FREE_SCHEDULES
from domains.model.scheduler_config import train_steps_of

Array = NDArray[np.float64]
_TOKENS = (256, 4096)
"""Picture tokens between which the shift grows."""
_SHIFTS = (0.5, 1.15)
"""The shift there, for a config that names none."""


class Flow(msgspec.Struct, frozen=True, kw_only=True):
    """What a family and a request say about a flow walk."""

    even: bool = False
    """Whether it begins with n even sigmas from 1 to 1/n; else with those from the highest to the lowest trained level."""
    tokens: int = _TOKENS[1]
    """Picture tokens that the denoiser reads."""


def flow_sigmas(config: Mapping[str, Any], sigma_schedule: str, steps: int, flow: Flow) -> Array:
    """Falling sigmas, 0..1, without the last zero."""
    dynamic = config.get("use_dynamic_shifting", False)
    shift = config.get("shift", 1.0)
    if flow.even:
        sigmas = np.linspace(1.0, 1 / steps, steps)
    else:
        # The trained levels are shifted already, and the walk's are shifted once more.
        lowest = 1 / train_steps_of(config)
        sigmas = np.linspace(1.0, lowest if dynamic else _shifted(lowest, shift), steps)
    found = _moved(sigmas, config, flow.tokens) if dynamic else _shifted(sigmas, shift)
    if terminal := config.get("shift_terminal"):
        found = 1 - (1 - found) * (1 - terminal) / (1 - found[-1])
    if sigma_schedule == "normal":
        return found
    return FREE_SCHEDULES[sigma_schedule](steps, float(found[-1]), float(found[0]))


def _shifted(sigmas: Any, shift: float) -> Any:
    """More of the walk at high noise, for pictures larger than those of the training (Esser et al. 2024, equation 23)."""
    return shift * sigmas / (1 + (shift - 1) * sigmas)


def _moved(sigmas: Array, config: Mapping[str, Any], tokens: int) -> Array:
    """The same by a shift that grows with the picture."""
    few, many = config.get("base_image_seq_len", _TOKENS[0]), config.get("max_image_seq_len", _TOKENS[1])
    low, high = config.get("base_shift", _SHIFTS[0]), config.get("max_shift", _SHIFTS[1])
    moved = low + (high - low) * (tokens - few) / (many - few)
    shift = math.exp(moved) if config.get("time_shift_type", "exponential") == "exponential" else moved
    return shift / (shift + (1 / sigmas - 1))
