"""A walk with a smooth stand-in for a denoiser, by our tables and by what they are compared with."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

from domains.inference.on_device.solver_state import SolverState
from domains.inference.on_device.solver_step import follow
from domains.inference.solvers.plan import Plan, plan

SD1: Mapping[str, object] = {
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "steps_offset": 1,
    "clip_sample": False,
    "set_alpha_to_one": False,
}
"""The scheduler_config.json of Stable Diffusion 1.5, without its class."""

_MIX = torch.randn(4, 4, generator=torch.Generator().manual_seed(5), dtype=torch.float64) * 0.3


def denoiser(latents: Tensor, timestep: float | Tensor) -> Tensor:
    """Not linear, and different at each timestep: a wrong coefficient or timestep shows."""
    mixed = torch.einsum("ij,njhw->nihw", _MIX.to(latents.dtype), latents)
    return torch.tanh(mixed + float(timestep) / 1000 - 0.5) + 0.1 * latents


def noises(count: int = 60) -> Iterator[Tensor]:
    """The same noise for both sides, (1, 4, 6, 6) each."""
    generator = torch.Generator().manual_seed(1)
    for _ in range(count):
        yield torch.randn(1, 4, 6, 6, generator=generator)


def planned(sampler: str, config: Mapping[str, Any], schedule: str, steps: int, eta: float | None = None) -> Plan:
    return plan(sampler, config, sigma_schedule=schedule, steps=steps, eta=eta)


def walked(
    plan: Plan, model: Callable[[Tensor, float], Tensor] = denoiser, dtype: torch.dtype = torch.float32
) -> Tensor:
    """The final latents of a table."""
    fresh = noises()
    state = SolverState(next(fresh).to(dtype) * plan.initial_scale, plan.lines)
    for line in plan.lines:
        noise = next(fresh).to(dtype) if line.following.noise else None
        follow([state], [model(state.latents, line.timestep)], [noise])
    return state.latents


def gap(ours: Tensor, theirs: Tensor) -> float:
    """Greatest difference, of the scale of the latents."""
    return ((ours - theirs).abs().max() / max(1.0, theirs.abs().max().item())).item()
