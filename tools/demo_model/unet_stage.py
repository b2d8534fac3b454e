"""Trains the UNet and the text encoder together, on the VAE's latents."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from diffusers.schedulers.scheduling_ddim import DDIMScheduler
from torch import Tensor

from tools.demo_model.dataset import Dataset
from tools.demo_model.networks import SCHEDULE, Networks
from tools.demo_model.trainer import Clock, Trainer, log

DROPPED_SHARE = 0.1
"""Captions left out, so that guidance has something to push away from."""
PURE_NOISE_FROM = 940
"""From this timestep on half of the inputs are pure noise, as sampling begins."""


@dataclass(frozen=True)
class UnetRecipe:
    """How one sitting goes."""

    rate: float
    batch: int
    final: bool
    """Whether the rate falls to zero."""
    compiled: bool


def train_unet(
    networks: Networks,
    latents: Tensor,
    data: Dataset,
    clock: Clock,
    recipe: UnetRecipe,
    dtype: torch.dtype,
) -> None:
    """For as long as the clock says. `latents`: scaled, as `vae_stage.latents_of` orders them."""
    alphas = DDIMScheduler(**SCHEDULE).alphas_cumprod.to(data.device)
    trainer = Trainer([networks.unet, networks.text], recipe.rate, dtype, 0.9995)
    unet, text = trainer.working
    denoise: Any = torch.compile(unet) if recipe.compiled else unet
    latents = latents.half() if data.device.type == "cuda" else latents
    total = torch.zeros((), device=data.device)
    while (progress := clock.progress(trainer.steps)) < 1:
        loss = _loss(denoise, text, latents, data, alphas, recipe.batch, dtype)
        trainer.step(loss, min(1, (trainer.steps + 1) / 300) * (1 - progress if recipe.final else 1.0))
        total += loss.detach()
        if trainer.steps % 500 == 0:
            pace = f"{trainer.steps / clock.spent():.2f} it/s, progress {progress:.2f}"
            log("unet", trainer.steps, f"loss {total.item() / 500:.4f}", pace)
            total.zero_()
        elif trainer.steps % 20 == 0 or trainer.steps == 1:
            loss.item()  # waits for the device, so that the clock sees what was really done
    trainer.finish()


def _loss(
    unet: Any, text: Any, latents: Tensor, data: Dataset, alphas: Tensor, batch: int, dtype: torch.dtype
) -> Tensor:
    device, kinds = data.device, len(data.backgrounds)
    icons = torch.randint(len(data), (batch,), device=device)
    backgrounds = (torch.randint(kinds * 2 - 2, (batch,), device=device) - (kinds - 2)).clamp(
        min=0
    )  # half of them white
    tokens = dropped(data.random_tokens(icons, backgrounds), data.empty)
    hidden = text(tokens).last_hidden_state
    return velocity_loss(
        lambda noisy, times: unet(noisy, times, hidden).sample, latents[backgrounds, icons], alphas, dtype
    )


def dropped(tokens: Tensor, empty: Tensor) -> Tensor:
    """n×77 tokens, some rows replaced by those of no caption."""
    return torch.where(torch.rand(len(tokens), 1, device=tokens.device) < DROPPED_SHARE, empty, tokens)


def velocity_loss(
    denoise: Callable[[Tensor, Tensor], Tensor], clean: Tensor, alphas: Tensor, dtype: torch.dtype
) -> Tensor:
    """On v, weighted by (min(SNR, 5) + 1) / (SNR + 1). `denoise` takes noisy latents and timesteps."""
    clean = clean.float()
    noise = torch.randn_like(clean)
    times = torch.randint(1000, (len(clean),), device=clean.device)
    alpha = alphas[times][:, None, None, None]
    noisy = alpha.sqrt() * clean + (1 - alpha).sqrt() * noise
    velocity = alpha.sqrt() * noise - (1 - alpha).sqrt() * clean
    pure = ((times >= PURE_NOISE_FROM) & (torch.rand(len(clean), device=clean.device) < 0.5))[:, None, None, None]
    noisy = torch.where(pure, noise, noisy)
    told = denoise(noisy.to(dtype).contiguous(memory_format=torch.channels_last), times)
    ratio = alpha / (1 - alpha)
    weight = (ratio.clamp(max=5) + 1) / (ratio + 1)
    return (weight * (told.float() - velocity).square()).mean()
