"""Trains a LoRA of another style of the same icons: the black drawings of Fluent Emoji High Contrast."""

import copy
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from diffusers.pipelines.stable_diffusion.pipeline_stable_diffusion import StableDiffusionPipeline
from diffusers.schedulers.scheduling_ddim import DDIMScheduler
from diffusers.utils.state_dict_utils import convert_state_dict_to_diffusers
from peft import LoraConfig
from peft.utils import get_peft_model_state_dict
from torch import Tensor, nn

from tools.demo_model.dataset import Dataset
from tools.demo_model.networks import SCHEDULE, Networks
from tools.demo_model.sampling import sample
from tools.demo_model.trainer import Clock, Trainer, log
from tools.demo_model.unet_stage import dropped, velocity_loss

RANK = 16
TARGETS = ("to_q", "to_k", "to_v", "to_out.0", "ff.net.0.proj", "ff.net.2", "conv1", "conv2")
FILE = "high-contrast.safetensors"


def train_lora(networks: Networks, latents: Tensor, data: Dataset, clock: Clock, batch: int, dtype: torch.dtype) -> Any:
    """A UNet with a LoRA, trained for as long as the clock says. `latents`: of the style, as `latents_of` orders them."""
    alphas = DDIMScheduler(**SCHEDULE).alphas_cumprod.to(data.device)
    unet = copy.deepcopy(networks.unet)
    unet.add_adapter(LoraConfig(r=RANK, lora_alpha=RANK, target_modules=list(TARGETS), init_lora_weights="gaussian"))
    trainer = Trainer([unet], 1e-3, dtype, 0.999, _factors)
    working, text = trainer.working[0], copy.deepcopy(networks.text).to(dtype)
    while (progress := clock.progress(trainer.steps)) < 1:
        icons = torch.randint(len(data), (batch,), device=data.device)
        backgrounds = torch.randint(len(data.backgrounds), (batch,), device=data.device)
        with torch.no_grad():
            hidden = text(dropped(data.random_tokens(icons, backgrounds), data.empty)).last_hidden_state
        loss = velocity_loss(
            lambda noisy, times, hidden=hidden: working(noisy, times, hidden).sample,
            latents[backgrounds, icons],
            alphas,
            dtype,
        )
        trainer.step(loss, min(1, (trainer.steps + 1) / 100) * (1 - progress))
        if trainer.steps % 200 == 0:
            log("lora", trainer.steps, f"loss {loss.item():.4f}", f"{trainer.steps / clock.spent():.2f} it/s")
        elif trainer.steps % 20 == 0 or trainer.steps == 1:
            loss.item()  # waits for the device, so that the clock sees what was really done
    trainer.finish()
    return unet.eval()


def _factors(unet: Any) -> Iterator[nn.Parameter]:
    return (parameter for name, parameter in unet.named_parameters() if "lora_" in name)


def save_lora(unet: Any, folder: Path) -> None:
    """One file in diffusers' format, float16."""
    layers = convert_state_dict_to_diffusers(get_peft_model_state_dict(unet))
    layers = {name: value.to("cpu", torch.float16).contiguous() for name, value in layers.items()}
    StableDiffusionPipeline.save_lora_weights(folder, unet_lora_layers=layers, weight_name=FILE)


def report_lora(unet: Any, networks: Networks, style: Tensor, flat: Tensor, data: Dataset) -> None:
    """How often the plain name on white brings the icon in the style, nearest of all icons in both styles."""
    generator = torch.Generator(data.device).manual_seed(1)
    right = styled = 0
    both = torch.cat([style[0], flat[0]]).float().flatten(1)
    for icons in data.numbers().split(128):
        drawn = sample(unet, networks.text, data.plain[icons], data.empty, 5.0, 20, generator)
        nearest = torch.cdist(drawn.flatten(1), both).argmin(1)
        right += int((nearest == icons).sum())
        styled += int((nearest < len(data)).sum())
    log(f"lora: {right / len(data):.3f} are the icon in the style, {styled / len(data):.3f} are in the style")
