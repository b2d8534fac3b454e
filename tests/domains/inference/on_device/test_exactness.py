"""The engine against diffusers' own pipeline: the same latents, whatever we do in another order."""

from pathlib import Path
from typing import Any

import pytest
import torch

from domains.inference.on_device.families.table import family_of
from domains.model.execution import Execution
from domains.model.on_device import OnDeviceModel, load
from tests.domains.inference.on_device.reference import COMPARED, final_latents, reference_latents, reference_pipeline
from tests.domains.inference.on_device.requests import embedded_model, request
from tests.domains.inference.on_device.tiny_model import write_tiny_model

TOLERANCE = 1e-4
WAYS: list[dict[str, Any]] = [
    *({"sampler": name, "sigma_schedule": schedule} for name, schedule in COMPARED),
    {"sampler": "dpm2_a"},
    {"sampler": "ddim", "eta": 0.7},
]
STEPS = {"dpm2_a": 8}
"""For solvers that magnify rounding in great leaps."""
SMALL = {"width_px": 64, "height_px": 64}


def named(way: dict[str, Any]) -> str:
    return "-".join(str(value) for value in way.values())


@pytest.fixture(scope="module")
def pipe() -> Any:
    return reference_pipeline(embedded_model())


@pytest.mark.parametrize("way", WAYS, ids=named)
def test_final_latents_equal_those_of_diffusers(way: dict[str, Any], embedded: OnDeviceModel, pipe: Any) -> None:
    # The other schedules take few steps in great leaps, which magnify rounding.
    steps = 8 if way.get("sigma_schedule") == "karras" else STEPS.get(way["sampler"], 4)
    asked = request(
        embedded_model(), None, prompt="owl on a blue background", negative_prompt="red", steps=steps, **SMALL, **way
    )
    theirs = reference_latents(pipe, asked)
    gap = (final_latents(embedded, asked) - theirs).abs().max()
    # Of the latents' scale: processors round differently.
    assert gap <= TOLERANCE * theirs.abs().max()


SHAPES: list[dict[str, Any]] = [
    {"guidance_scale": 1.0},
    {"guidance_scale": 7.5, "seeds": (3, 9, 4)},
    {"guidance_scale": 0.0, "seeds": (3, 9)},
    {"guidance_scale": 3.0, "width_px": 72, "height_px": 56},
    {"guidance_scale": 3.0, "prompt": "owl " * 200, "sampler": "euler_a", "seeds": (1, 2)},
    {"guidance_scale": 3.0, "prompt": "", "sampler": "euler_a", "seeds": (1, 2)},
]


@pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: ",".join(shape))
@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction"])
def test_every_shape_of_request_equals_diffusers(prediction: str, shape: dict[str, Any], tmp_path: Path) -> None:
    model = write_tiny_model(tmp_path / "tiny", prediction)
    asked = request(model, None, **({"sampler": "unipc", "steps": 5, "negative_prompt": "a red car"} | shape))
    theirs = reference_latents(reference_pipeline(model), asked)
    gap = (final_latents(load(model, "cpu"), asked) - theirs).abs().max()
    # Random weights do not denoise: latents grow to 60, and rounding with them.
    assert gap <= 1e-5 * theirs.abs().max()


def test_the_reference_can_differ(embedded: OnDeviceModel, pipe: Any) -> None:
    asked = request(embedded_model(), steps=2)
    other = request(embedded_model(), asked, seeds=(8,))
    assert (final_latents(embedded, asked) - reference_latents(pipe, other)).abs().max().item() > 0.1


def test_parts_of_different_precisions_compute_together(embedded: OnDeviceModel) -> None:
    asked = request(embedded_model(), None, prompt="owl on a blue background", steps=2, **SMALL)
    mixed = Execution(precision="float32", text_encoder_precision="bfloat16", vae_precision="bfloat16")
    loaded = load(embedded_model(), "cpu", execution=mixed)
    whole = final_latents(embedded, asked)
    gap = (final_latents(loaded, asked) - whole).abs()
    # bfloat16 has 8 bits: the text differs in the third digit, and the picture little.
    assert 0 < gap.mean().item() < 0.05
    with torch.inference_mode():
        pixels, usual = (family_of(model).decode(whole[:1])[0][0].float() for model in (loaded, embedded))
    assert 0 < (pixels - usual).abs().mean().item() < 3
