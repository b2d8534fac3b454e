"""Trains the VAE, rescales its latents, and measures it."""

import math
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812  # the name that torch's own documentation uses
from diffusers.models.autoencoders.vae import DiagonalGaussianDistribution
from torch import Tensor

from tools.demo_model.dataset import Dataset
from tools.demo_model.networks import LATENT_SCALE
from tools.demo_model.trainer import Clock, Trainer, log


def train_vae(vae: Any, data: Dataset, clock: Clock, *, batch: int, dtype: torch.dtype, compiled: bool) -> None:
    """Encoder and decoder together, for as long as the clock says."""
    trainer = Trainer([vae], 1e-3, dtype, 0.998)
    work: Any = trainer.working[0]
    encode, decode = (torch.compile(part) if compiled else part for part in (work.encoder, work.decoder))
    while (progress := clock.progress(trainer.steps)) < 1:
        picture = data.augmented(batch).to(dtype).contiguous(memory_format=torch.channels_last)
        latents = DiagonalGaussianDistribution(work.quant_conv(encode(picture)))
        sampled = latents.sample()
        divergence = 0.5 * (latents.mean.float() ** 2 + latents.var.float() - 1 - latents.logvar.float()).mean()
        loss = picture_loss(decode(work.post_quant_conv(sampled)), picture) + 4e-4 * divergence
        trainer.step(loss, warm_cosine(trainer.steps, 200, progress))
        if trainer.steps % 250 == 0:
            pace = f"{trainer.steps / clock.spent():.1f} it/s"
            log("vae", trainer.steps, f"loss {loss.item():.4f} kl {divergence.item():.3f}", pace)
        elif trainer.steps % 10 == 0 or trainer.steps == 1:
            loss.item()  # waits for the device, so that the clock sees what was really done
    trainer.finish()


def warm_cosine(steps: int, warm: int, progress: float) -> float:
    """Share of the rate: up over `warm` steps, then down to 1 % along a cosine."""
    return min(1, (steps + 1) / warm) * (0.5 + 0.5 * math.cos(math.pi * progress)) + 0.01


def picture_loss(drawn: Tensor, meant: Tensor) -> Tensor:
    """Of colours, of edges, and of the picture at half and quarter size."""
    error = (drawn - meant).float()
    loss = error.abs().mean() + 0.5 * error.square().mean()
    loss = loss + 0.5 * (error.diff(dim=2).abs().mean() + error.diff(dim=3).abs().mean())
    for _ in range(2):
        error = F.avg_pool2d(error, 2)
        loss = loss + 0.5 * error.abs().mean()
    return loss


@torch.no_grad()
def latents_of(vae: Any, data: Dataset) -> Tensor:
    """Means, unscaled: backgrounds × icons × 4 × 32 × 32."""
    rows: list[Tensor] = []
    for colour in data.colours:
        parts = [
            vae.encode(data.picture(icons, colour.expand(len(icons), 3))).latent_dist.mean
            for icons in data.numbers().split(32)
        ]
        rows.append(torch.cat(parts))
    return torch.stack(rows)


@torch.no_grad()
def normalise(vae: Any, data: Dataset) -> None:
    """Fold mean 0 and deviation 1 / LATENT_SCALE into the 1×1 convolutions beside the latents."""
    latents = latents_of(vae, data)
    mean, deviation = latents.mean((0, 1, 3, 4)), latents.std((0, 1, 3, 4))
    gain = 1 / (LATENT_SCALE * deviation)
    log("latent mean", mean.tolist(), "std", deviation.tolist())
    into, out_of = vae.quant_conv, vae.post_quant_conv
    into.weight[:4] *= gain[:, None, None, None]
    into.bias[:4] = (into.bias[:4] - mean) * gain
    into.bias[4:] += 2 * gain.log()
    out_of.bias += out_of.weight[:, :, 0, 0] @ mean
    out_of.weight /= gain[None, :, None, None]


@torch.no_grad()
def report_vae(vae: Any, data: Dataset) -> None:
    """PSNR of what comes back, over all icons."""
    errors: list[float] = []
    for icons in data.numbers().split(32):
        colours = data.colours[torch.arange(len(icons), device=data.device) % len(data.colours)]
        meant = data.picture(icons, colours)
        drawn = vae.decode(vae.encode(meant).latent_dist.mean).sample.clamp(-1, 1)
        errors += (meant - drawn).square().mean((1, 2, 3)).tolist()
    log(f"vae reconstruction PSNR {psnr_db(errors):.2f} dB over {len(data)} icons")


def psnr_db(errors: list[float]) -> float:
    """Mean over pictures, of mean squared errors on the scale -1..1."""
    return float(np.mean([10 * math.log10(4 / error) for error in errors]))
