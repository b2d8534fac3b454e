"""Limits, intervals and counts of generations and solvers: each was chosen, and another one is another choice.

Callers and operators notice them, and few are worth a test that waits for them. Limits that refuse something have tests of
their own, at and beyond the limit.
"""

from types import ModuleType

import pytest

from domains.inference import details, detections, fallback, hires, kept_readings, masks, refiner, samplers
from domains.inference.checks import latents, request
from domains.inference.prompts import segment, windows
from domains.inference.recipes import a1111, comfyui
from domains.inference.resolution import adapters
from domains.inference.solvers import (
    consistency,
    deis,
    dpm,
    flow_sigmas,
    flow_walk,
    lms,
    plan,
    sigma_schedules,
    trained_noise,
)

CHOSEN: list[tuple[ModuleType, dict[str, object]]] = [
    (request, {"_LEAST_SHARES": 0.01}),
    (details, {"DEFAULT_STRENGTH": 0.4, "DEFAULT_DILATION_PX": 4, "DEFAULT_BLUR_PX": 4, "DEFAULT_PADDING_PX": 32}),
    (detections, {"DEFAULT_CONFIDENCE": 0.5, "MOST_FINDS": 100}),
    (fallback, {"MOST_ATTEMPTS": 10}),
    (hires, {"DEFAULT_SCALE": 2.0, "DEFAULT_STRENGTH": 0.5}),
    (masks, {"DEFAULT_BLUR_PX": 8, "DEFAULT_ZOOM_PADDING_PX": 32, "DEFAULT_OVERLAP_PX": 32}),
    (segment, {"BRACKET_WEIGHT": 1.1}),
    (windows, {"_BACK": 20, "_SHORT": 8}),
    (a1111, {"_LINE": 64 << 10, "_SETTINGS": 64}),
    (comfyui, {"_ALL": 10_000, "_FAR": 64}),
    (refiner, {"DEFAULT_START": 0.8, "DEFAULT_SCORE": 6.0, "DEFAULT_NEGATIVE_SCORE": 2.5}),
    (adapters, {"_DEFAULT_WEIGHT": 1.0}),
    (samplers, {"DISTILLED_STEPS": 50}),
    (consistency, {"_SIGMA_DATA": 0.5, "_TIMESTEP_SCALING": 10.0}),
    (deis, {"_SHORT": 15}),
    (dpm, {"_SHORT": 15}),
    (flow_sigmas, {"_TOKENS": (256, 4096), "_SHIFTS": (0.5, 1.15)}),
    (flow_walk, {"_TRAIN_STEPS": 1000}),
    (lms, {"_ORDER": 4}),
    (plan, {"_TRIED_STEPS": 4}),
    (trained_noise, {"_BETAS": (0.0001, 0.02, "linear"), "_SMALLEST": 2.0**-24, "_MOST_BETA": 0.999}),
    (sigma_schedules, {"_RHO": 7.0, "_BETA": 0.6, "_THRESHOLD": 0.025}),
    (latents, {"_CHANNELS": 4, "_LEVELS": 16}),
    (kept_readings, {"_FLOAT32": 4}),
]


@pytest.mark.parametrize(("module", "figures"), CHOSEN, ids=[module.__name__ for module, _ in CHOSEN])
def test_a_figure_is_the_one_that_was_chosen(module: ModuleType, figures: dict[str, object]) -> None:
    assert {name: getattr(module, name) for name in figures} == figures
