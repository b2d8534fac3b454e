"""What one step of eight jobs with eight samplers costs beside the denoiser, against diffusers' schedulers.

Ours walks all rows by one product; diffusers' steps are taken one after the other, as its pipelines take them. Both follow
the same outputs with the same noise, and end at the same latents.
"""

import os

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # as a worker that computes on the CPU

import time
import warnings
from collections.abc import Iterator, Sequence
from importlib.metadata import version
from typing import Any

import torch
from torch import Tensor

from bench.measure import ratio, result, spread
from domains.inference.on_device.noise import Noise, draw_together
from domains.inference.on_device.solver_state import SolverState
from domains.inference.on_device.solver_step import follow
from domains.inference.solvers.weights import NOISE
from tests.domains.inference.solvers.test_against_diffusers import CLASSES
from tests.domains.inference.solvers.walking import SD1, gap, planned

SAMPLERS = ("euler", "euler_a", "dpmpp_2m", "dpmpp_2m_sde", "unipc", "deis", "ddim", "pndm")
STEPS = 20
EDGES = (16, 64)
"""Of the latents: pictures of 128 and 512 pixels."""
ROUNDS = 9
TOLERANCE = 1e-4
TARGET = 2.0


class Ours:
    """Eight walks."""

    def __init__(self, edge: int) -> None:
        plans = [planned(sampler, SD1, "normal", STEPS) for sampler in SAMPLERS]
        self.noises = [Noise([seed], (4, edge, edge), torch.device("cpu")) for seed in range(len(plans))]
        pairs = zip(plans, self.noises, strict=True)
        self.states = [SolverState(noise.draw() * plan.initial_scale, plan.lines) for plan, noise in pairs]

    def step(self, outputs: Sequence[Tensor]) -> None:
        """One line of each."""
        drawing = zip(self.states, self.noises, strict=True)
        noises = draw_together([noise if NOISE in state.weights.reads else None for state, noise in drawing])
        follow(self.states, outputs, noises)

    @property
    def latents(self) -> list[Tensor]:
        """Of each walk."""
        return [state.latents for state in self.states]


class Theirs:
    """Eight schedulers."""

    def __init__(self, edge: int) -> None:
        self._generators = [torch.Generator().manual_seed(seed) for seed in range(len(SAMPLERS))]
        self._schedulers = [self._scheduler(sampler) for sampler in SAMPLERS]
        self._timesteps: list[Iterator[Any]] = [iter(scheduler.timesteps) for scheduler in self._schedulers]
        pairs = zip(self._schedulers, self._generators, strict=True)
        shape = (1, 4, edge, edge)
        self.latents = [torch.randn(shape, generator=generator) * one.init_noise_sigma for one, generator in pairs]

    def _scheduler(self, sampler: str) -> Any:
        kind, options = CLASSES[sampler]
        scheduler = kind.from_config({**SD1, **options})
        scheduler.set_timesteps(STEPS)
        if hasattr(scheduler, "set_begin_index"):
            scheduler.set_begin_index(0)
        return scheduler

    def step(self, outputs: Sequence[Tensor]) -> None:
        """One step of each; the denoiser's input is scaled as a pipeline scales it."""
        for place, (scheduler, output) in enumerate(zip(self._schedulers, outputs, strict=True)):
            timestep, latents = next(self._timesteps[place]), self.latents[place]
            scheduler.scale_model_input(latents, timestep)
            given = {"generator": self._generators[place]} if SAMPLERS[place] in ("euler_a", "dpmpp_2m_sde") else {}
            self.latents[place] = scheduler.step(output, timestep, latents, return_dict=False, **given)[0]


def walk(side: Ours | Theirs, outputs: Sequence[Sequence[Tensor]]) -> float:
    """Seconds of all steps."""
    begin = time.perf_counter()
    for one in outputs:
        side.step(one)
    return time.perf_counter() - begin


def measure(edge: int) -> tuple[list[float], list[float], float]:
    """Seconds of our walks and of theirs, and the greatest difference of their ends."""
    random = torch.Generator().manual_seed(1)
    outputs = [torch.randn(len(SAMPLERS), 4, edge, edge, generator=random).split(1) for _ in range(STEPS)]
    ours_s: list[float] = []
    theirs_s: list[float] = []
    worst = 0.0
    for _ in range(ROUNDS + 1):
        ours, theirs = Ours(edge), Theirs(edge)
        ours_s.append(walk(ours, outputs))
        theirs_s.append(walk(theirs, outputs))
        worst = max(worst, *(gap(*pair) for pair in zip(ours.latents, theirs.latents, strict=True)))
    return ours_s[1:], theirs_s[1:], worst


def main() -> int:
    """Print how many times faster ours is."""
    warnings.simplefilter("ignore")  # Diffusers' schedulers warn at every step.
    with torch.inference_mode():
        found = {edge: measure(edge) for edge in EDGES}
    ours_s, theirs_s, _ = found[EDGES[0]]
    worst = max(worst for *_, worst in found.values())
    return result(
        "solver_step",
        ratio(theirs_s, ours_s),
        target=TARGET,
        peer=f"diffusers {version('diffusers')} schedulers, one after the other",
        conditions={"latents equal": worst <= TOLERANCE},
        details={
            "largest difference of scale": worst,
            "samplers": SAMPLERS,
            "microseconds a step by edge of the latents": {
                edge: {"ours": spread(_per_step(ours)), "diffusers": spread(_per_step(theirs))}
                for edge, (ours, theirs, _) in found.items()
            },
        },
    )


def _per_step(walks_s: Sequence[float]) -> list[float]:
    return [1e6 * seconds / STEPS for seconds in walks_s]


if __name__ == "__main__":
    raise SystemExit(main())
