"""A part of the steps: what is left out is left out, what is computed is as diffusers computes it."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import pytest
import torch
from PIL import Image

from domains.inference.generation import ResolvedGeneration
from domains.inference.on_device.trajectory import walk_together
from domains.inference.samplers import SAMPLERS
from domains.inference.solvers.plan import plan
from domains.inference.step_range import StepRange
from domains.model.model import Model
from tests.domains.inference.on_device.from_picture import begun_from, from_picture, gradient, latents_from
from tests.domains.inference.on_device.masked import levels, mask, masked_latents
from tests.domains.inference.on_device.recorder import Recorder
from tests.domains.inference.on_device.reference import final_latents
from tests.domains.inference.on_device.requests import request
from tests.domains.inference.on_device.test_every_family import TOLERANCE, Loaded, asked, begun, gap, their_latents
from tests.domains.inference.on_device.test_inpainting import kept_at, run
from tests.domains.inference.on_device.tiny_families import write_tiny_family

PICTURE = gradient(48, 32)


@pytest.fixture(scope="module", params=["sdxl", "flux1"])
def family(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Loaded:
    name: str = request.param
    return Loaded(write_tiny_family(name, tmp_path_factory.mktemp("families") / name))


def part(first: int | None = None, last: int | None = None, **more: Any) -> dict[str, Any]:
    return {"part": StepRange(first_step=first, last_step=last, **more)}


def alpha_before(family: Loaded, wanted: ResolvedGeneration, step: int) -> float:
    """Share of the clean latents where a step begins."""
    found = plan(wanted.sampler, family.ours.scheduler_config, sigma_schedule="normal", steps=wanted.steps, eta=None)
    return found.ends[step - 1].alpha


@pytest.mark.parametrize("sampler", list(SAMPLERS))
def test_a_walk_that_stops_early_was_the_whole_walk_so_far(sampler: str) -> None:
    config = {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012, "steps_offset": 1}
    schedule = SAMPLERS[sampler].sigma_schedules[0]
    whole, early = (
        plan(sampler, config, sigma_schedule=schedule, steps=5, eta=None, visited=range(last)) for last in (5, 3)
    )
    assert (early.steps, early.left) == (3, 2)
    assert early.lines == whole.lines[: len(early.lines)]
    assert early.ends == whole.ends[:3]
    assert early.lines[-1].ends_step


def test_the_latents_of_a_walk_that_stops_early_are_those_of_diffusers(tmp_path: Path) -> None:
    family = Loaded(write_tiny_family("sdxl", tmp_path / "sdxl"))
    wanted = asked(family, steps=4, seeds=(3, 9), **part(last=2))

    def pipe(**arguments: Any) -> Any:
        return family.theirs(**arguments, denoising_end=0.5)

    theirs = their_latents(family, wanted, pipe)
    # Diffusers' Euler has clean + σ/α · noise, a denoiser α·clean + σ·noise.
    ours = final_latents(family.ours, wanted) / alpha_before(family, wanted, 2)
    assert gap(ours, theirs) < TOLERANCE
    assert gap(ours, final_latents(family.ours, asked(family, steps=4, seeds=(3, 9)))) > 10 * TOLERANCE


def test_a_first_step_is_the_strength_that_leaves_as_many(family: Loaded) -> None:
    by_strength = latents_from(family.ours, asked(family, steps=4, init_image=from_picture(0.5)), PICTURE)
    by_step = latents_from(family.ours, asked(family, steps=4, init_image=from_picture(0.75), **part(2)), PICTURE)
    assert torch.equal(by_step, by_strength)


def test_without_noise_the_walk_starts_at_the_picture_as_in_diffusers(tmp_path: Path) -> None:
    family = Loaded(write_tiny_family("sdxl", tmp_path / "sdxl"))
    wanted = asked(family, steps=4, init_image=from_picture(0.5), **part(2, add_noise=False))
    kind: Any = getattr(diffusers, "StableDiffusionXLImg2ImgPipeline")  # noqa: B009 (not exported for type checkers)
    pipeline = kind(**family.theirs.components)
    pipeline.set_progress_bar_config(disable=True)
    theirs = pipeline(
        prompt=wanted.prompt,
        negative_prompt=wanted.negative_prompt,
        image=Image.fromarray(np.asarray(PICTURE)),
        denoising_start=0.5,
        num_inference_steps=wanted.steps,
        guidance_scale=wanted.guidance_scale,
        generator=torch.Generator().manual_seed(wanted.seeds[0]),
        output_type="latent",
    ).images
    ours = latents_from(family.ours, wanted, PICTURE)
    assert gap(ours, theirs) < TOLERANCE
    noisy = asked(family, steps=4, init_image=from_picture(0.5), **part(2))
    assert gap(ours, latents_from(family.ours, noisy, PICTURE)) > 10 * TOLERANCE


def test_from_text_a_later_first_step_starts_at_less_noise(family: Loaded) -> None:
    with torch.inference_mode():
        first, third = (begun(family, asked(family, steps=4, **part(step))) for step in (0, 2))
    config = family.ours.scheduler_config
    walk = plan(family.model.default_sampler, config, sigma_schedule="normal", steps=4, eta=None, visited=range(2, 4))
    assert walk.begin is not None
    assert (third.steps, walk.initial_scale) == (2, walk.begin.sigma)
    assert float(third.latents.std()) < float(first.latents.std())


def test_around_a_masked_part_is_the_picture_at_the_noise_of_the_last_step(family: Loaded) -> None:
    white, plain = levels(48, 32, (16, 8, 40, 24)), {"steps": 4, "init_image": from_picture(1.0), "mask": mask()}
    early = masked_latents(family.ours, asked(family, **plain, **part(last=2)), PICTURE, white)
    whole = masked_latents(family.ours, asked(family, **plain), PICTURE, white)
    # The corner is outside the mask: noisy after two steps, the picture's own after all.
    assert gap(early[..., :1, :1], whole[..., :1, :1]) > 10 * TOLERANCE


def test_jobs_with_and_without_a_part_share_forwards(family: Loaded) -> None:
    jobs = [
        asked(family, steps=4, init_image=from_picture(0.5)),
        asked(family, steps=5, init_image=from_picture(0.5), **part(1, 3)),
    ]
    alone = [latents_from(family.ours, one, PICTURE) for one in jobs]
    with torch.inference_mode():
        group = [begun_from(family.ours, one, PICTURE) for one in jobs]
        while walking := [one for one in group if not one.done]:
            walk_together(walking)
    for one, latents in zip(group, alone, strict=True):
        assert gap(one.latents, latents) < TOLERANCE


@pytest.fixture(scope="module")
def loop(tiny: Model) -> Iterator[Recorder]:
    recorder = Recorder(tiny)
    yield recorder
    recorder.loop.close()


def test_a_paused_part_goes_on_to_the_same_bytes(loop: Recorder, tiny: Model, tmp_path: Path) -> None:
    wanted = request(tiny, sampler="euler_a", steps=6, width_px=16, height_px=16, **part(1, 5))
    run(loop, tmp_path, "whole", wanted)
    kept = kept_at(loop, tmp_path, "paused", wanted, 2)
    run(loop, tmp_path, "resumed", wanted, kept=kept)
    assert loop.files("resumed") == loop.files("whole") != []
