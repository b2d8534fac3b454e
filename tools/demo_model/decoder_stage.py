"""Fine-tunes the decoder alone: half on what the UNet really samples, paired with the icon meant, half on noisy encodings.

This takes away the mottling that sampled latents get from a decoder which has seen only encoded ones.
"""

import copy
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from tools.demo_model.dataset import Dataset
from tools.demo_model.networks import LATENT_SCALE, Networks
from tools.demo_model.sampling import sample
from tools.demo_model.trainer import Clock, Trainer, log
from tools.demo_model.vae_stage import picture_loss, psnr_db, warm_cosine

GUIDANCES = (3.0, 5.0, 7.5)
USABLE_RMS = 0.5
"""Samples farther than this from the latents meant are left out: they show something else."""


@dataclass(frozen=True)
class Samples:
    """What the UNet drew, and what it was asked for."""

    latents: Tensor
    icons: Tensor
    backgrounds: Tensor

    def meant(self, data: Dataset, chosen: Tensor) -> Tensor:
        """The pictures asked for."""
        return data.picture(self.icons[chosen], data.colours[self.backgrounds[chosen]])


@dataclass(frozen=True)
class Encodings:
    """Augmented pictures (8 bits) and their scaled latents."""

    pictures: Tensor
    latents: Tensor


def polish_decoder(
    networks: Networks,
    latents: Tensor,
    data: Dataset,
    clock: Clock,
    *,
    batch: int,
    pool: int,
    dtype: torch.dtype,
) -> None:
    """For as long as the clock says, the sampling included. `batch`: pictures a step; `pool`: encodings to draw from."""
    samples = _sampled(networks, latents, data, dtype)
    encodings = _encoded(networks.vae, data, pool)
    _measure(networks.vae, samples, data)
    trainer = Trainer([networks.vae], 6e-4, dtype, 0.997, _decoder_parameters)
    clock.go_on()
    while (progress := clock.progress(trainer.steps)) < 1:
        loss = _loss(trainer.working[0], samples, encodings, data, batch // 2, dtype)
        trainer.step(loss, warm_cosine(trainer.steps, 50, progress))
        if trainer.steps % 250 == 0:
            log("decoder", trainer.steps, f"loss {loss.item():.4f}", f"{trainer.steps / clock.spent():.1f} it/s")
        elif trainer.steps % 10 == 0 or trainer.steps == 1:
            loss.item()  # waits for the device, so that the clock sees what was really done
    trainer.finish()
    _measure(networks.vae, samples, data)


def _decoder_parameters(vae: Any) -> Iterator[nn.Parameter]:
    yield from vae.decoder.parameters()
    yield from vae.post_quant_conv.parameters()


def _sampled(networks: Networks, latents: Tensor, data: Dataset, dtype: torch.dtype) -> Samples:
    """Each icon at each guidance, on a random background with a random caption; the usable ones."""
    generator = torch.Generator(data.device).manual_seed(2)
    unet, text = (copy.deepcopy(part).to(dtype).eval() for part in (networks.unet, networks.text))
    kept: list[tuple[Tensor, Tensor, Tensor]] = []
    for guidance in GUIDANCES:
        for icons in data.numbers().split(256):
            backgrounds = torch.randint(len(data.backgrounds), (len(icons),), device=data.device)
            tokens = data.random_tokens(icons, backgrounds)
            drawn = sample(unet, text, tokens, data.empty, guidance, 20, generator)
            good = (drawn - latents[backgrounds, icons]).square().mean((1, 2, 3)).sqrt() < USABLE_RMS
            kept.append((drawn[good], icons[good], backgrounds[good]))
    drawn, icons, backgrounds = (torch.cat(parts) for parts in zip(*kept, strict=True))
    log(f"sampled {len(drawn)} of {len(GUIDANCES) * len(data)} usable")
    return Samples(latents=drawn, icons=icons, backgrounds=backgrounds)


@torch.no_grad()
def _encoded(vae: Any, data: Dataset, pool: int) -> Encodings:
    pictures: list[Tensor] = []
    latents: list[Tensor] = []
    for _ in range(pool // 32):
        picture = data.augmented(32)
        latents.append(vae.encode(picture).latent_dist.mean * LATENT_SCALE)
        pictures.append(((picture + 1) * 127.5).round().clamp(0, 255).byte())
    return Encodings(pictures=torch.cat(pictures), latents=torch.cat(latents))


@torch.no_grad()
def _measure(vae: Any, samples: Samples, data: Dataset) -> None:
    errors: list[float] = []
    for chosen in torch.arange(min(len(samples.latents), 256), device=data.device).split(32):
        drawn = vae.decode(samples.latents[chosen] / LATENT_SCALE).sample.clamp(-1, 1)
        errors += (drawn - samples.meant(data, chosen)).square().mean((1, 2, 3)).tolist()
    log(f"sampled pictures against the icons meant: {psnr_db(errors):.2f} dB")


def _loss(vae: Any, samples: Samples, encodings: Encodings, data: Dataset, half: int, dtype: torch.dtype) -> Tensor:
    device = data.device
    drawn = torch.randint(len(samples.latents), (half,), device=device)
    other = torch.randint(len(encodings.latents), (half,), device=device)
    pictures = torch.cat([samples.meant(data, drawn), encodings.pictures[other].float() / 127.5 - 1])
    strength = torch.rand(half, 1, 1, 1, device=device) * 0.25
    noisy = encodings.latents[other] + strength * torch.randn_like(encodings.latents[other])
    latents = torch.cat([samples.latents[drawn], noisy])
    inside = vae.post_quant_conv((latents / LATENT_SCALE).to(dtype).contiguous(memory_format=torch.channels_last))
    return picture_loss(vae.decoder(inside), pictures)
