"""The walk of a model of ε, v or clean latents, from its scheduler_config.json (diffusers' names and defaults)."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from domains.inference.solvers.level import Level
from domains.inference.solvers.sigma_schedules import SCHEDULES
from domains.inference.solvers.spacing import DEFAULTS, Grid, timesteps
from domains.inference.solvers.table import Last, Solver
from domains.inference.solvers.trained_noise import TrainedNoise
from domains.inference.solvers.walk import Options, Step, Walk

_NO_NOISE = Level(1.0, 0.0, 0.0)
_SCALED_SPACINGS = ("linspace", "trailing")
"""Spacings with which the solvers of k-diffusion begin at σ of the first level, not at 1."""

_TOLD: Mapping[tuple[Grid, str], Callable[[float], float]] = {
    (Grid.INTERVALS, "exponential"): lambda timestep: max(0, math.floor(timestep - _ROUNDING)),
    (Grid.INTERVALS, "beta"): lambda timestep: max(0, math.floor(timestep - _ROUNDING)),
}
"""How diffusers changes the timestep of a level between two trained ones. Other combinations keep it."""
_ROUNDING = 1e-3
"""Diffusers truncates timesteps that float32 rounding has left a little below a whole number."""


def trained_walk(
    solver: Solver, config: Mapping[str, Any], sigma_schedule: str, steps: int, options: Options
) -> Walk | None:
    """The steps of a walk; None: the model's spacing gives another number of steps, or repeats a level."""
    noise = TrainedNoise(config)
    spacing = config.get("timestep_spacing", DEFAULTS.get(solver.grid, "leading"))
    visited = timesteps(
        solver.grid, spacing, config.get("steps_offset", 0), steps, len(noise), _last_timestep(noise, config)
    )
    if len(visited) != steps or not _trained(solver.grid, visited, len(noise)):
        return None
    if sigma_schedule == "normal":
        found = _normal(solver, noise, config, visited)
    else:
        found = _scheduled(solver, noise, config, visited, sigma_schedule)
    if any(step.end.ratio >= step.begin.ratio for step in found[:-1]):
        return None
    return Walk(
        steps=found,
        prediction=config.get("prediction_type", "epsilon"),
        initial_scale=initial_scale(solver, config, found[0].begin),
        between=noise.at_ratio,
        at_timestep=noise.at_timestep,
        options=options,
    )


def initial_scale(solver: Solver, config: Mapping[str, Any], first: Level) -> float:
    """Standard deviation of the first latents."""
    spacing = config.get("timestep_spacing", DEFAULTS.get(solver.grid, "leading"))
    return first.sigma if solver.grid is Grid.POINTS and spacing in _SCALED_SPACINGS else 1.0


def _trained(grid: Grid, visited: NDArray[np.float64], trained: int) -> bool:
    """Whether the levels that the grid looks up exist."""
    if grid in (Grid.POINTS, Grid.INTERVALS):
        return True
    return bool(visited.min() >= 0 and visited.max() < trained)


def _last_timestep(noise: TrainedNoise, config: Mapping[str, Any]) -> int:
    """One above the highest timestep whose λ is not below `lambda_min_clipped`."""
    floor = config.get("lambda_min_clipped", -np.inf)
    return len(noise) - int(np.searchsorted(-np.log(noise.ratios[::-1]), floor))


def _normal(
    solver: Solver, noise: TrainedNoise, config: Mapping[str, Any], visited: NDArray[np.float64]
) -> tuple[Step, ...]:
    end = end_level(solver.grid, solver.last, noise, config)
    match solver.grid:
        case Grid.POINTS | Grid.INTERVALS:
            return chained([noise.at_fraction(float(place)) for place in visited], end)
        case Grid.CHAIN:
            return chained([noise.at_timestep(int(place)) for place in visited], end)
        case Grid.DISTILLED:
            return chained([noise.at_timestep(int(place)) for place in visited], noise.at_timestep(0))
        case Grid.TRAINED:
            stride = len(noise) // len(visited)
            ends = [int(place) - stride for place in visited]
            levels = [noise.at_timestep(place) if place >= 0 else end for place in ends]
            begins = [noise.at_timestep(int(place)) for place in visited]
            return tuple(Step(begin, level) for begin, level in zip(begins, levels, strict=True))


def _scheduled(
    solver: Solver, noise: TrainedNoise, config: Mapping[str, Any], visited: NDArray[np.float64], schedule: str
) -> tuple[Step, ...]:
    ends = noise.ratios
    if solver.grid is Grid.POINTS:
        ends = [noise.at_fraction(float(place)).ratio for place in visited]
    low, high = float(min(ends)), float(max(ends))
    low, high = config.get("sigma_min") or low, config.get("sigma_max") or high
    ratios = SCHEDULES[schedule](len(visited), low, high, noise)
    told = _TOLD.get((solver.grid, schedule), float)
    if schedule == "karras" and (solver.whole_karras and config.get("beta_schedule") != "squaredcos_cap_v2"):
        told = round
    levels = [noise.at_ratio(float(ratio), told) for ratio in ratios]
    return chained(levels, end_level(solver.grid, solver.last, noise, config))


def end_level(grid: Grid, last: Last, noise: TrainedNoise, config: Mapping[str, Any]) -> Level:
    """The level that a walk ends at."""
    noisy = {
        Last.CLEAN: False,
        Last.TRAINED: True,
        Last.CONFIGURED: config.get("final_sigmas_type") == "sigma_min",
        # Defaults of diffusers' DDIM and PNDM.
        Last.ALPHA_ONE: not config.get("set_alpha_to_one", True),
        Last.ALPHA_FIRST: not config.get("set_alpha_to_one", False),
    }[last]
    if not noisy:
        return _NO_NOISE
    first = noise.at_timestep(0)
    # The solvers of k-diffusion end with clean + σ/α · noise, all others with α·clean + σ·noise.
    return Level(1.0, first.ratio, 0.0) if grid is Grid.POINTS else first


def chained(levels: Sequence[Level], end: Level) -> tuple[Step, ...]:
    """A step from each level to the next, and from the last one to the end."""
    return tuple(Step(begin, following) for begin, following in zip(levels, [*levels[1:], end], strict=True))
