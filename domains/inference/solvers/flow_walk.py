"""The walk of a flow model (SD3, Flux), whose latents are (1 − σ)·clean + σ·noise."""

from collections.abc import Sequence

from domains.inference.solvers.level import Level, in_flow
from domains.inference.solvers.trained_walk import chained
from domains.inference.solvers.walk import Options, Walk

_TRAIN_STEPS = 1000
"""The timestep of a flow model is σ times this."""


def flow_walk(sigmas: Sequence[float], options: Options, train_steps: int = _TRAIN_STEPS, last: float = 0.0) -> Walk:
    """The walk over falling sigmas, 0..1. `last`: the sigma that it ends at, which `sigmas` leaves out."""

    def level(sigma: float) -> Level:
        return in_flow(sigma, sigma * train_steps)

    return Walk(
        steps=chained([level(sigma) for sigma in sigmas], level(last)),
        prediction="flow",
        initial_scale=1.0,
        between=lambda ratio: level(ratio / (1 + ratio)),
        at_timestep=lambda timestep: level(timestep / train_steps),
        options=options,
    )
