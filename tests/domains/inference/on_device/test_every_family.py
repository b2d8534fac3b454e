"""Each computed family against diffusers' own pipeline, on random weights: same prompts, same noise, same latents."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
import torch
from torch import Tensor

from domains.errors import InvalidRequest
from domains.inference.generation import ResolvedGeneration
from domains.inference.guidance import default_distilled
from domains.inference.on_device.adapters import NO_ADAPTERS, Adapters
from domains.inference.on_device.conditioning import condition
from domains.inference.on_device.families.packing import packed, unpacked
from domains.inference.on_device.families.table import FAMILIES as ENGINE
from domains.inference.on_device.families.table import family_of
from domains.inference.on_device.prompt_cache import PromptCache
from domains.inference.on_device.trajectory import Trajectory, begin, walk_together
from domains.model.model import Model, ModelState
from domains.model.on_device import OnDeviceModel, load
from tests.domains.inference.on_device.from_picture import from_picture, gradient, latents_from, their_latents_from
from tests.domains.inference.on_device.masked import levels, mask, masked_latents, their_masked_latents
from tests.domains.inference.on_device.reference import final_latents
from tests.domains.inference.on_device.requests import request, their_guidance
from tests.domains.inference.on_device.tiny_families import TINY, family_of_name, their_pipeline, write_tiny_family

TOLERANCE = 1e-4
PACKED = ("flux1", "chroma")
"""Families whose pipelines take and give latents as tokens."""
OWL, FOG = "an owl that sits on a branch of an old tree at night", "fog, rain, blurred, too dark to see anything"
SIZE = {"width_px": 48, "height_px": 32}


class Loaded:
    """A tiny model of one family: on disk, in our engine, in diffusers' pipeline."""

    def __init__(self, model: Model, pipeline: Callable[[Model], Any] | None = None) -> None:
        """`pipeline`: of diffusers; None: the one of the tiny model."""
        self.model = model
        self.ours: OnDeviceModel = load(model, "cpu")
        self.fresh: Callable[[], Any] = lambda: (
            their_pipeline(Path(model.folder)) if pipeline is None else pipeline(model)
        )
        self.theirs = self.fresh()


@pytest.fixture(scope="module", params=list(TINY))
def family(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Loaded:
    name: str = request.param
    model = write_tiny_family(name, tmp_path_factory.mktemp("families") / name)
    assert (model.family, model.state, model.problem) == (family_of_name(name), ModelState.AVAILABLE, "")
    return Loaded(model)


def asked(family: Loaded, **changes: Any) -> ResolvedGeneration:
    plain: dict[str, Any] = {
        "sampler": family.model.default_sampler,
        "prompt": OWL,
        "negative_prompt": FOG,
        "steps": 3,
        **SIZE,
    }
    found = request(family.model, **{**plain, **changes})
    # The plan refuses embedded guidance for a model that reads none.
    return (
        found
        if default_distilled(family.model) is not None
        else msgspec.structs.replace(found, distilled_guidance=None)
    )


def their_latents(family: Loaded, wanted: ResolvedGeneration, pipe: Any = None) -> Tensor:
    """Of diffusers' pipeline, or of another one like it; initial noise from one generator a picture, as ours."""
    shape = family_of(family.ours).latent_shape(wanted.width_px, wanted.height_px)
    noise = torch.cat([torch.randn((1, *shape), generator=torch.Generator().manual_seed(one)) for one in wanted.seeds])
    pictures = len(wanted.seeds)
    found = (pipe or family.theirs)(
        prompt=[wanted.prompt] * pictures,
        height=wanted.height_px,
        width=wanted.width_px,
        num_inference_steps=wanted.steps,
        **their_guidance(wanted),
        latents=packed(noise) if wanted.family in PACKED else noise,
        output_type="latent",
    ).images
    return unpacked(found, *shape[1:]) if wanted.family in PACKED else found


def gap(ours: Tensor, theirs: Tensor) -> float:
    """Largest difference in the scale of the latents."""
    assert ours.shape == theirs.shape
    return float((ours - theirs).abs().max() / theirs.abs().max().clamp(min=1))


CASES: dict[str, dict[str, Any]] = {
    "guided": {},
    "without_guidance": {"guidance_scale": 0.0},
    "guidance_of_1": {"guidance_scale": 1.0},
    "without_guidance_of_any_kind": {"guidance_scale": 1.0, "distilled_guidance": 0.0},
    "without_a_negative_prompt": {"negative_prompt": ""},
    "two_pictures_one_step": {"seeds": (3, 9), "steps": 1},
}


@pytest.mark.parametrize("case", list(CASES))
def test_the_latents_are_those_of_diffusers(family: Loaded, case: str) -> None:
    wanted = asked(family, **CASES[case])
    assert gap(final_latents(family.ours, wanted), their_latents(family, wanted)) < TOLERANCE


PICTURES: dict[str, dict[str, Any]] = {
    "half": {"steps": 4, "init_image": from_picture(0.5)},
    "two_pictures_all_steps": {"steps": 2, "seeds": (3, 9), "init_image": from_picture(1.0)},
}


@pytest.mark.parametrize("case", list(PICTURES))
def test_the_latents_from_a_picture_are_those_of_diffusers(family: Loaded, case: str) -> None:
    wanted = asked(family, **PICTURES[case])
    picture = gradient(wanted.width_px, wanted.height_px)
    theirs = their_latents_from(family.theirs, wanted, picture)
    if theirs is None:
        assert wanted.family == "auraflow", "diffusers has a pipeline for every other family"
        pytest.skip("diffusers makes no pictures from pictures with this family")
    assert gap(latents_from(family.ours, wanted, picture), theirs) < TOLERANCE


MASKED: dict[str, dict[str, Any]] = {
    "part": {"steps": 4, "init_image": from_picture(0.75), "seeds": (3, 9)},
    "all_steps": {"steps": 2, "init_image": from_picture(1.0)},
}


@pytest.mark.parametrize("case", list(MASKED))
def test_the_latents_of_a_masked_part_are_those_of_diffusers(family: Loaded, case: str) -> None:
    wanted = asked(family, mask=mask(), **MASKED[case])
    picture, white = gradient(48, 32), levels(48, 32, (16, 8, 40, 24))
    theirs = their_masked_latents(family.theirs, wanted, picture, white)
    if theirs is None:
        assert wanted.family == "auraflow", "diffusers has a pipeline for every other family"
        pytest.skip("diffusers makes no masked parts with this family")
    ours = masked_latents(family.ours, wanted, picture, white)
    assert gap(ours, theirs) < TOLERANCE
    assert gap(ours, latents_from(family.ours, wanted, picture)) > 10 * TOLERANCE


def test_a_picture_counts_the_more_the_less_strength_there_is(family: Loaded) -> None:
    picture = gradient(48, 32)
    encoded = family_of(family.ours).encode_picture(picture).mean
    weak, strong = (
        latents_from(family.ours, asked(family, steps=10, init_image=from_picture(strength)), picture)
        for strength in (0.1, 0.8)
    )
    assert (weak - encoded).abs().mean() < (strong - encoded).abs().mean()


def begun(family: Loaded, wanted: ResolvedGeneration, adapters: Adapters = NO_ADAPTERS) -> Trajectory:
    view = family_of(family.ours)
    found = condition(family.ours, view, wanted, PromptCache(), adapters)
    config, device = family.ours.scheduler_config, family.ours.device
    return begin(view, wanted, config, found.conditions, device, adapters=adapters, renew=found.renew)


def test_jobs_of_any_guidance_size_and_step_share_forwards(family: Loaded) -> None:
    mixed = [
        asked(family),
        asked(family, guidance_scale=1.0, prompt="a cat", steps=5),
        asked(family, seeds=(1, 2), guidance_scale=3.0),
        asked(family, width_px=64, height_px=64),
    ]
    alone = [final_latents(family.ours, wanted) for wanted in mixed]
    with torch.inference_mode():
        group = [begun(family, wanted) for wanted in mixed]
        while walking := [one for one in group if not one.done]:
            walk_together(walking)
    for one, latents in zip(group, alone, strict=True):
        assert gap(one.latents, latents) < TOLERANCE


def test_a_forward_is_left_between_its_parts(family: Loaded) -> None:
    class Left(Exception):
        pass

    looks = 0

    def keep_on() -> None:
        nonlocal looks
        looks += 1
        if looks == 3:
            raise Left

    with torch.inference_mode():
        trajectory = begun(family, asked(family))
        with pytest.raises(Left):
            walk_together([trajectory], keep_on)
        assert trajectory.index == 0
        while not trajectory.done:
            walk_together([trajectory])
    assert gap(trajectory.latents, final_latents(family.ours, asked(family))) < TOLERANCE


def test_previews_and_pictures_come_in_the_size_that_was_asked_for(family: Loaded) -> None:
    view = family_of(family.ours)
    latents = final_latents(family.ours, asked(family, seeds=(3, 9)))
    with torch.inference_mode():
        previews = view.preview(latents, (12, 20))
        picture = view.decode(latents[:1])[0][0]
    assert (previews.shape, previews.dtype) == ((2, 12, 20, 3), torch.uint8)
    assert (picture.shape, picture.dtype) == ((32, 48, 3), torch.uint8)


def test_every_computed_family_is_compared() -> None:
    # `test_refiner` compares the refiner, which makes no picture by itself.
    assert {"sd1", "sdxl_refiner", *map(family_of_name, TINY)} == set(ENGINE)


CHANGES: dict[str, dict[str, Any]] = {
    "prompt": {"prompt": "a red car in front of a small house by the sea"},
    "negative_prompt": {"negative_prompt": "blue, bright, with a frame around it"},
    "blank_negative_prompt": {"negative_prompt": ""},
    "guidance": {"guidance_scale": 2.0},
    "distilled_guidance": {"distilled_guidance": 9.0},
    "seed": {"seeds": (8,)},
}


@pytest.mark.parametrize("change", list(CHANGES))
def test_each_input_counts(family: Loaded, change: str) -> None:
    """Else the comparisons above could not fail."""
    plain, changed = asked(family), asked(family, **CHANGES[change])
    found = gap(final_latents(family.ours, changed), final_latents(family.ours, plain))
    assert (found > 10 * TOLERANCE) == reads(family.model, change)


def reads(model: Model, change: str) -> bool:
    """Whether a model's denoiser reads the input."""
    return change != "distilled_guidance" or default_distilled(model) is not None


def test_a_size_beyond_the_models_positions_is_refused_with_the_longest_edge(family: Loaded) -> None:
    if not family.model.family.startswith(("sd3", "auraflow")):
        pytest.skip("its positions are computed")
    with pytest.raises(InvalidRequest) as refused:
        final_latents(family.ours, asked(family, width_px=448))
    (violation,) = refused.value.violations
    assert (violation.field, violation.allowed) == ("generation.width_px", "at most 384")
