"""The `parameters` text of a picture, as A1111 and tools like it read it: prompt, negative prompt, one line of settings.

A1111's `Model hash` is over the model's single file and ours over all its weights, so that key is left out.
Source: `create_infotext` in AUTOMATIC1111/stable-diffusion-webui, modules/processing.py.
"""

import importlib.metadata
import json
from collections.abc import Iterator

from domains.inference.generation import ResolvedGeneration
from domains.inference.hires import ResolvedHires
from domains.inference.resampling import Resampling
from domains.inference.samplers import SAMPLERS, SIGMA_SCHEDULES

_COUNTS_FROM_LAST = ("sd1", "sd2")
"""Families whose "Clip skip" A1111 counts from 1, the last layer; it has none for SDXL."""

LATENTS = {
    Resampling.BILINEAR: "Latent",
    Resampling.BICUBIC: "Latent (bicubic)",
    Resampling.NEAREST: "Latent (nearest-exact)",
}
PIXELS = {Resampling.LANCZOS: "Lanczos", Resampling.NEAREST: "Nearest"}
"""A1111's upscaler names of the filters that enlarge latents and pixels."""


def parameters_of(request: ResolvedGeneration, index: int) -> str:
    """The text of picture `index` (0-based) of a request."""
    negative = f"\nNegative prompt: {request.negative_prompt}" if request.negative_prompt else ""
    settings = ", ".join(f"{key}: {_quoted(value)}" for key, value in _settings(request, index))
    return f"{request.prompt}{negative}\n{settings}".strip()


def _settings(request: ResolvedGeneration, index: int) -> Iterator[tuple[str, str]]:
    yield "Steps", str(request.steps)
    yield "Sampler", SAMPLERS[request.sampler].display_name
    if request.sigma_schedule not in ("", "normal"):
        yield "Schedule type", SIGMA_SCHEDULES[request.sigma_schedule]
    yield "CFG scale", f"{request.guidance_scale:g}"
    if request.distilled_guidance is not None:
        yield "Distilled CFG Scale", f"{request.distilled_guidance:g}"
    yield "Seed", str(request.seeds[index])
    yield "Size", f"{request.width_px}x{request.height_px}"
    yield "Model", request.model_id
    if request.init_image is not None:
        yield "Denoising strength", f"{request.init_image.strength:g}"
    if request.refiner is not None:
        yield "Refiner", request.refiner.model_id
        yield "Refiner switch at", f"{request.refiner.start_ratio:g}"
    if request.hires_pass is not None:
        yield from _hires(request.hires_pass)
    if request.clip_skip and request.family in _COUNTS_FROM_LAST:
        yield "Clip skip", str(request.clip_skip + 1)
    if request.eta:
        yield "Eta DDIM", f"{request.eta:g}"
    yield "Version", f"DeviceOps {importlib.metadata.version('deviceops')}"


def _hires(hires: ResolvedHires) -> Iterator[tuple[str, str]]:
    yield "Denoising strength", f"{hires.strength:g}"
    yield "Hires resize", f"{hires.width_px}x{hires.height_px}"
    yield "Hires steps", str(hires.steps)
    named = (PIXELS if hires.of_pixels else LATENTS).get(hires.filter, hires.filter.title())
    yield "Hires upscaler", hires.upscaler_model_id or named


def _quoted(value: str) -> str:
    """Quote a value as A1111 does, where a reader would split it."""
    return json.dumps(value, ensure_ascii=False) if set(value) & set(",\n:") else value
