"""Trains a small ControlNet that follows the edges of a picture (canny)."""

import copy
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from diffusers.models.controlnets.controlnet import ControlNetModel
from diffusers.schedulers.scheduling_ddim import DDIMScheduler
from torch import Tensor

from tools.demo_model.dataset import Dataset
from tools.demo_model.networks import LATENT_SCALE, SCHEDULE, Networks
from tools.demo_model.sampling import Residuals, sample
from tools.demo_model.trainer import Clock, Trainer, log
from tools.demo_model.unet_stage import dropped, velocity_loss

CANNY = (100, 200)
"""Thresholds, on 8-bit grey."""


@dataclass(frozen=True)
class Examples:
    """Moved icons, so that only the edges tell where they are."""

    latents: Tensor
    edges: Tensor
    """n×1×256×256, 0 or 1, 8 bits."""
    tokens: Tensor


def new_control(networks: Networks) -> Any:
    """The UNet's way down without its attention: the edges tell where, the UNet's own text what. 1.9 M parameters."""
    kept = ("block_out_channels", "layers_per_block", "cross_attention_dim", "attention_head_dim", "norm_num_groups")
    config = {name: networks.unet.config[name] for name in kept}
    control = ControlNetModel(
        down_block_types=("DownBlock2D",) * 3,
        mid_block_type="UNetMidBlock2D",
        conditioning_embedding_out_channels=(16, 24, 32, 64),
        **config,
    )
    there: Mapping[str, Tensor] = networks.unet.state_dict()
    shared = {
        name: there[name]
        for name, value in control.state_dict().items()
        if name in there and there[name].shape == value.shape
    }
    control.load_state_dict(shared, strict=False)
    log("control:", sum(one.numel() for one in control.parameters()), "parameters,", len(shared), "tensors of the UNet")
    return control


@torch.no_grad()
def examples(networks: Networks, data: Dataset, count: int, moved: float) -> Examples:
    """So many pictures, and their edges and captions."""
    latents: list[Tensor] = []
    edges: list[Tensor] = []
    tokens: list[Tensor] = []
    with ThreadPoolExecutor(16) as pool:
        for _ in range(-(-count // 64)):
            icons = torch.randint(len(data), (64,), device=data.device)
            backgrounds = torch.randint(len(data.backgrounds), (64,), device=data.device)
            picture = data.moved(icons, data.colours[backgrounds], moved)
            latents.append(networks.vae.encode(picture).latent_dist.mean * LATENT_SCALE)
            pixels = ((picture + 1) * 127.5).round().byte().permute(0, 2, 3, 1).cpu().numpy()
            found = torch.from_numpy(np.stack(list(pool.map(canny, pixels))))
            edges.append(found[:, None].to(data.device))
            tokens.append(data.random_tokens(icons, backgrounds))
    return Examples(latents=torch.cat(latents), edges=torch.cat(edges), tokens=torch.cat(tokens))


def canny(pixels: np.ndarray[tuple[int, ...], np.dtype[np.uint8]]) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    """H×W×3 → H×W, 1 on an edge."""
    return (cv2.Canny(cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY), *CANNY) > 0).astype(np.uint8)


def train_control(
    networks: Networks, data: Dataset, some: Examples, clock: Clock, batch: int, dtype: torch.dtype
) -> Any:
    """A ControlNet, trained for as long as the clock says."""
    alphas = DDIMScheduler(**SCHEDULE).alphas_cumprod.to(data.device)
    control = new_control(networks).to(data.device)
    trainer = Trainer([control], 1e-3, dtype, 0.999)
    working = trainer.working[0]
    unet, text = (copy.deepcopy(part).to(dtype).requires_grad_(False) for part in (networks.unet, networks.text))
    while (progress := clock.progress(trainer.steps)) < 1:
        chosen = torch.randint(len(some.latents), (batch,), device=data.device)
        with torch.no_grad():
            hidden = text(dropped(some.tokens[chosen], data.empty)).last_hidden_state
        residuals = _residuals(working, some.edges[chosen].to(dtype).expand(-1, 3, -1, -1))
        loss = velocity_loss(
            lambda noisy, times, hidden=hidden, add=residuals: (
                unet(noisy, times, hidden, **add(noisy, times, hidden)).sample
            ),
            some.latents[chosen],
            alphas,
            dtype,
        )
        trainer.step(loss, min(1, (trainer.steps + 1) / 100) * (1 - progress))
        if trainer.steps % 200 == 0:
            log("control", trainer.steps, f"loss {loss.item():.4f}", f"{trainer.steps / clock.spent():.2f} it/s")
        elif trainer.steps % 20 == 0 or trainer.steps == 1:
            loss.item()  # waits for the device, so that the clock sees what was really done
    trainer.finish()
    return control.eval()


def _residuals(control: Any, edges: Tensor) -> Residuals:
    def add(noisy: Tensor, times: Tensor, hidden: Tensor) -> dict[str, Any]:
        rows = edges if len(edges) == len(noisy) else torch.cat([edges] * (len(noisy) // len(edges)))
        down, middle = control(noisy, times, hidden, controlnet_cond=rows.to(noisy.dtype), return_dict=False)
        return {"down_block_additional_residuals": down, "mid_block_additional_residual": middle}

    return add


def save_control(control: Any, folder: Path) -> None:
    """A diffusers folder, float16."""
    copy.deepcopy(control).to("cpu", torch.float16).save_pretrained(folder, safe_serialization=True)


def report_control(control: Any, networks: Networks, data: Dataset, count: int) -> None:
    """Over so many pictures: how near the moved pictures come with their edges, and without."""
    torch.manual_seed(3)
    some = examples(networks, data, count, 1.0)
    for name, residuals in (
        ("with its edges", _residuals(control, some.edges.float().expand(-1, 3, -1, -1))),
        ("without", None),
    ):
        generator = torch.Generator(data.device).manual_seed(1)
        drawn = sample(networks.unet, networks.text, some.tokens, data.empty, 5.0, 20, generator, residuals)
        error = (drawn - some.latents).square().mean((1, 2, 3)).sqrt().mean()
        log(f"control: latent rms error {error:.3f} {name}; edges found again {_kept(networks, drawn, some.edges):.3f}")


@torch.no_grad()
def _kept(networks: Networks, drawn: Tensor, edges: Tensor) -> float:
    """Share of the asked edges that have one of the drawn picture within 2 px."""
    shares: list[float] = []
    near = np.ones((5, 5), np.uint8)
    for latents, asked in zip(drawn.split(32), edges.split(32), strict=True):
        picture = networks.vae.decode(latents / LATENT_SCALE).sample.clamp(-1, 1)
        pixels = ((picture + 1) * 127.5).byte().permute(0, 2, 3, 1).cpu().numpy()
        for one, wanted in zip(pixels, asked[:, 0].cpu().numpy(), strict=True):
            found = cv2.dilate(canny(one), near)
            shares.append(float((found * wanted).sum() / max(1, wanted.sum())))
    return float(np.mean(shares))
