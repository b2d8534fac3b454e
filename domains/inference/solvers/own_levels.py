"""A walk over noise levels that a request lists."""

from collections.abc import Mapping, Sequence
from typing import Any

from domains.errors import ErrorReason, InvalidRequest, Violation
from domains.inference.own_walk import OwnWalk
from domains.inference.solvers.flow_walk import flow_walk
from domains.inference.solvers.level import Level
from domains.inference.solvers.spacing import Grid
from domains.inference.solvers.table import Solver
from domains.inference.solvers.trained_noise import TrainedNoise
from domains.inference.solvers.trained_walk import chained, end_level, initial_scale
from domains.inference.solvers.walk import Options, Walk
from domains.model.scheduler_config import is_flow, train_steps_of


def own_levels(solver: Solver, config: Mapping[str, Any], own: OwnWalk, options: Options) -> Walk:
    """The walk between the request's sigmas, or from its timesteps to the level that the solver ends at. Raises
    UNSUPPORTED_COMBINATION for timesteps that reach that level before their end."""
    if is_flow(config):
        trained = train_steps_of(config)
        sigmas = own.sigmas or [*(timestep / trained for timestep in own.timesteps), 0.0]
        return flow_walk(sigmas[:-1], options, trained, sigmas[-1])
    noise = TrainedNoise(config)
    levels, end = _by_sigmas(solver, noise, own.sigmas) if own.sigmas else _by_timesteps(solver, noise, config, own)
    return Walk(
        steps=chained(levels, end),
        prediction=config.get("prediction_type", "epsilon"),
        initial_scale=initial_scale(solver, config, levels[0]),
        between=noise.at_ratio,
        at_timestep=noise.at_timestep,
        options=options,
    )


def _by_sigmas(solver: Solver, noise: TrainedNoise, sigmas: Sequence[float]) -> tuple[Sequence[Level], Level]:
    *ratios, last = sigmas
    end = Level(1.0, last, 0.0) if solver.grid is Grid.POINTS or not last else noise.at_ratio(last)
    return [noise.at_ratio(ratio) for ratio in ratios], end


def _by_timesteps(
    solver: Solver, noise: TrainedNoise, config: Mapping[str, Any], own: OwnWalk
) -> tuple[Sequence[Level], Level]:
    levels = [noise.at_fraction(timestep) for timestep in own.timesteps]
    end = end_level(solver.grid, solver.last, noise, config)
    if end.ratio >= levels[-1].ratio:
        field = f"generation.sampling.timesteps[{len(levels) - 1}]"
        text = f"this sampler ends at the noise of timestep 0, which {own.timesteps[-1]} is not above; leave it out"
        raise InvalidRequest([Violation(field=field, message=text)], ErrorReason.UNSUPPORTED_COMBINATION)
    return levels, end
