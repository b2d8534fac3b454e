"""Samples latents with guidance, and asks whether each name brings back its own icon."""

from collections.abc import Callable
from typing import Any

import torch
from diffusers.schedulers.scheduling_dpmsolver_multistep import DPMSolverMultistepScheduler
from torch import Tensor

from tools.demo_model.dataset import Dataset
from tools.demo_model.networks import SCHEDULE
from tools.demo_model.trainer import log

Residuals = Callable[[Tensor, Tensor, Tensor], dict[str, Any]]
"""Takes noisy latents, a timestep and the text's states; returns arguments of the UNet."""


@torch.no_grad()
def sample(
    unet: Any,
    text: Any,
    tokens: Tensor,
    empty: Tensor,
    guidance: float,
    steps: int,
    generator: torch.Generator,
    residuals: Residuals | None = None,
) -> Tensor:
    """n×77 tokens → n×4×32×32 latents, by DPM++ 2M. `residuals`: what a ControlNet adds; None: nothing."""
    scheduler: Any = DPMSolverMultistepScheduler(**SCHEDULE)
    scheduler.set_timesteps(steps, device=tokens.device)
    latents = torch.randn(len(tokens), 4, 32, 32, generator=generator, device=tokens.device)
    nothing = text(empty[None]).last_hidden_state.expand(len(tokens), -1, -1)
    hidden = torch.cat([nothing, text(tokens).last_hidden_state])
    for time in scheduler.timesteps:
        noisy = torch.cat([latents, latents]).to(hidden.dtype)
        more = residuals(noisy, time, hidden) if residuals else {}
        told = unet(noisy, time, hidden, **more).sample.float()
        without, with_it = told.chunk(2)
        latents = scheduler.step(without + guidance * (with_it - without), time, latents).prev_sample
    return latents


@torch.no_grad()
def score(unet: Any, text: Any, latents: Tensor, data: Dataset, guidance: float = 5.0, steps: int = 20) -> None:
    """Over all plain names on white: how often the nearest icon is the one that was named. `latents`: as `latents_of`."""
    generator = torch.Generator(data.device).manual_seed(1)
    ranks: list[Tensor] = []
    distances: list[Tensor] = []
    for icons in data.numbers().split(128):
        drawn = sample(unet, text, data.plain[icons], data.empty, guidance, steps, generator)
        apart = torch.cdist(drawn.flatten(1), latents[0].float().flatten(1))
        own = apart[torch.arange(len(icons)), icons]
        ranks.append((apart < own[:, None]).sum(1))
        distances.append(own / 64)
    rank = torch.cat(ranks)
    right = f"top-1 {(rank < 1).float().mean():.3f} top-5 {(rank < 5).float().mean():.3f}"
    log(f"guidance {guidance} steps {steps}: {right}, latent rms error {torch.cat(distances).mean():.3f}")
