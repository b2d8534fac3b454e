"""The same generation twice: by diffusers' own pipeline, and by our engine's parts."""

from typing import Any

import torch
from diffusers.pipelines.stable_diffusion.pipeline_stable_diffusion import StableDiffusionPipeline
from torch import Tensor

from domains.inference.generation import ResolvedGeneration
from domains.inference.on_device.adapters import NO_ADAPTERS, Adapters
from domains.inference.on_device.conditioning import condition
from domains.inference.on_device.families.table import family_of
from domains.inference.on_device.prompt_cache import PromptCache
from domains.inference.on_device.trajectory import begin, walk_together
from domains.model.model import Model
from domains.model.on_device import OnDeviceModel
from domains.model.sampler_names import FLAG_OF_SCHEDULE
from tests.domains.inference.solvers.test_against_diffusers import CLASSES

COMPARED = [
    *(
        (name, "normal")
        for name in ("euler", "euler_a", "heun", "dpmpp_2m", "dpmpp_2m_sde", "ddim", "ddpm", "unipc", "lcm")
    ),
    *((name, "karras") for name in ("euler", "dpmpp_2m", "dpm2", "deis")),
]
"""A sampler and a sigma schedule for each kind of line; `tests/domains/inference/solvers` has all, without a model."""


def reference_pipeline(model: Model) -> Any:
    """Diffusers' own, in float32; `Any`, as what it returns depends on its arguments."""
    pipe = StableDiffusionPipeline.from_pretrained(
        model.folder, torch_dtype=torch.float32, local_files_only=True, safety_checker=None
    )
    pipe.set_progress_bar_config(disable=True)
    return pipe


def reference_latents(pipe: Any, asked: ResolvedGeneration) -> Tensor:
    """Its final latents; initial noise and step noise from one generator a picture, as ours."""
    own = pipe.scheduler
    flags = {flag: schedule == asked.sigma_schedule for schedule, flag in FLAG_OF_SCHEDULE.items()}
    scheduler, options = CLASSES[asked.sampler]
    pipe.scheduler = scheduler.from_config(own.config, **options, **flags)
    generators = [torch.Generator().manual_seed(seed) for seed in asked.seeds]
    shape = (1, 4, asked.height_px // pipe.vae_scale_factor, asked.width_px // pipe.vae_scale_factor)
    noise = torch.cat([torch.randn(shape, generator=generator) for generator in generators])
    try:
        return pipe(
            [asked.prompt] * len(generators),
            negative_prompt=[asked.negative_prompt] * len(generators),
            height=asked.height_px,
            width=asked.width_px,
            num_inference_steps=asked.steps,
            guidance_scale=asked.guidance_scale,
            eta=asked.eta or 0.0,
            latents=noise.to(pipe.device),
            generator=generators,
            output_type="latent",
        ).images.cpu()
    finally:
        pipe.scheduler = own


def final_latents(loaded: OnDeviceModel, asked: ResolvedGeneration, adapters: Adapters = NO_ADAPTERS) -> Tensor:
    """Our engine's final latents."""
    family = family_of(loaded)
    with torch.inference_mode():
        found = condition(loaded, family, asked, PromptCache(), adapters)
        config, device = loaded.scheduler_config, loaded.device
        trajectory = begin(family, asked, config, found.conditions, device, adapters=adapters, renew=found.renew)
        while not trajectory.done:
            walk_together([trajectory])
        return trajectory.latents.cpu()
