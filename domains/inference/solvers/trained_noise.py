"""The noise levels that a model was trained with, from its scheduler_config.json (diffusers' names and defaults)."""

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from domains.inference.solvers.level import Level, at_ratio
from domains.model.scheduler_config import train_steps_of

Array = NDArray[np.float64]
_BETAS = (0.0001, 0.02, "linear")
"""First and last beta and their schedule, of Ho et al. 2020, for a config that names none."""
_BETAS_OF = {
    **dict.fromkeys(
        ("HeunDiscreteScheduler", "KDPM2DiscreteScheduler", "KDPM2AncestralDiscreteScheduler"),
        (0.00085, 0.012, "linear"),
    ),
    **dict.fromkeys(("LCMScheduler", "TCDScheduler"), (0.00085, 0.012, "scaled_linear")),
}
"""The same by the class that the config names, where diffusers has others."""
_SMALLEST = 2.0**-24
"""What replaces a share of clean signal of zero, which no ratio σ/α can express."""
_MOST_BETA = 0.999


class TrainedNoise:
    """Levels of timesteps 0 … T−1, with rising noise."""

    def __init__(self, config: Mapping[str, Any]) -> None:
        """Raises FloatingPointError for betas that leave no signal which a float can express."""
        rescaled = config.get("rescale_betas_zero_snr")
        shares = np.cumprod(1 - (_rescaled(_betas(config)) if rescaled else _betas(config)))
        self.alphas: Array = np.sqrt(shares)
        self.sigmas: Array = np.sqrt(1 - shares)
        visible = np.maximum(shares, _SMALLEST) if rescaled else shares
        with np.errstate(all="raise"):
            self.ratios: Array = np.sqrt((1 - visible) / visible)
            """σ/α, finite."""
            self._logs = np.log(self.ratios)

    def __len__(self) -> int:
        return len(self.alphas)

    def at_timestep(self, timestep: int) -> Level:
        """The level of a trained timestep, as it was trained."""
        return Level(float(self.alphas[timestep]), float(self.sigmas[timestep]), timestep)

    def at_fraction(self, timestep: float) -> Level:
        """The level between two trained ones: their σ/α is interpolated."""
        ratio = float(np.interp(timestep, np.arange(len(self)), self.ratios))
        return at_ratio(ratio, timestep)

    def at_ratio(self, ratio: float, told: Callable[[float], float] = float) -> Level:
        """The level at σ/α. Its timestep is interpolated in log σ/α; `told` turns it into what the denoiser reads."""
        return at_ratio(ratio, told(self.timestep_of(ratio)))

    def timestep_of(self, ratio: float) -> float:
        """The timestep, 0 … T−1, of a ratio σ/α."""
        return float(np.interp(math.log(max(ratio, 1e-10)), self._logs, np.arange(len(self))))


def _betas(config: Mapping[str, Any]) -> Array:
    trained = config.get("trained_betas")
    if trained is not None:
        return np.array(trained, dtype=np.float64)
    steps = train_steps_of(config)
    usual = _BETAS_OF.get(str(config.get("_class_name", "")), _BETAS)
    names = ("beta_start", "beta_end", "beta_schedule")
    first, last, schedule = (config.get(name, value) for name, value in zip(names, usual, strict=True))
    match schedule:
        case "scaled_linear":
            return np.linspace(first**0.5, last**0.5, steps) ** 2
        case "squaredcos_cap_v2":
            places = np.arange(steps + 1) / steps
            shares = np.cos((places + 0.008) / 1.008 * math.pi / 2) ** 2
            return np.minimum(1 - shares[1:] / shares[:-1], _MOST_BETA)
        case _:
            return np.linspace(first, last, steps)


def _rescaled(betas: Array) -> Array:
    """Betas of the same first level whose last has no signal at all (Lin et al. 2023, algorithm 1)."""
    alphas = np.sqrt(np.cumprod(1 - betas))
    moved = (alphas - alphas[-1]) * alphas[0] / (alphas[0] - alphas[-1])
    shares = moved**2
    return 1 - np.concatenate([shares[:1], shares[1:] / shares[:-1]])
