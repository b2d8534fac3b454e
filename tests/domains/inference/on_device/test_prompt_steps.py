"""Prompts that change with the step, and prompts that AND joins, against diffusers' modules step by step."""

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from domains.inference.generation import ResolvedGeneration
from domains.inference.kept_file import KeptFile
from domains.inference.on_device.checkpoint import packed, unpack
from domains.inference.on_device.conditioning import condition
from domains.inference.on_device.families.table import family_of
from domains.inference.on_device.prompt_cache import PromptCache
from domains.inference.on_device.trajectory import Trajectory, begin, walk_together
from domains.inference.prompts import LongPrompt, Syntax
from domains.inference.size_conditioning import SizeConditioning
from tests.domains.inference.on_device.reference import final_latents
from tests.domains.inference.on_device.test_every_family import FOG, OWL, TOLERANCE, Loaded, asked, gap
from tests.domains.inference.on_device.tiny_families import write_tiny_family
from tests.domains.inference.on_device.tiny_model import write_tiny_model

A1111 = Syntax.A1111


@pytest.fixture(scope="module", params=["sd1", "sdxl"])
def family(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Loaded:
    from tests.domains.inference.on_device.reference import reference_pipeline

    folder = tmp_path_factory.mktemp("steps")
    if request.param == "sd1":
        return Loaded(write_tiny_model(folder / "sd1"), pipeline=reference_pipeline)
    return Loaded(write_tiny_family("sdxl", folder / "sdxl"))


def wanted_of(family: Loaded, prompt: str, **changes: Any) -> ResolvedGeneration:
    plain: dict[str, Any] = {"prompt_syntax": A1111, "negative_prompt": FOG, "steps": 4, "sampler": "euler"}
    return asked(family, prompt=prompt, **{**plain, **changes})


@torch.inference_mode()
def theirs(family: Loaded, wanted: ResolvedGeneration, steps: Sequence[Sequence[tuple[str, float]]]) -> Tensor:
    """Latents of diffusers' modules. `steps`: in each step, the prompts with their weights in the sum of guidances."""
    pipe: Any = family.theirs
    shape = family_of(family.ours).latent_shape(wanted.width_px, wanted.height_px)
    pipe.scheduler.set_timesteps(wanted.steps)
    latents = torch.randn((1, *shape), generator=torch.Generator().manual_seed(wanted.seeds[0]))
    latents = latents * pipe.scheduler.init_noise_sigma

    def predicted(text: str, scaled: Tensor, timestep: Tensor) -> Tensor:
        found = pipe.encode_prompt(text, device="cpu", num_images_per_prompt=1, do_classifier_free_guidance=False)
        added: dict[str, Any] = {}
        if len(found) == 4:
            size = (wanted.height_px, wanted.width_px)
            ids = torch.tensor([[*size, 0, 0, *size]], dtype=torch.float32)
            added = {"added_cond_kwargs": {"text_embeds": found[2], "time_ids": ids}}
        return pipe.unet(scaled, timestep, encoder_hidden_states=found[0], **added).sample

    for timestep, prompts in zip(pipe.scheduler.timesteps, steps, strict=True):
        scaled = pipe.scheduler.scale_model_input(latents, timestep)
        without = predicted(wanted.negative_prompt, scaled, timestep)
        output = without.clone()
        for text, weight in prompts:
            output += wanted.guidance_scale * weight * (predicted(text, scaled, timestep) - without)
        latents = pipe.scheduler.step(output, timestep, latents).prev_sample
    return latents


CASES: dict[str, tuple[str, Sequence[Sequence[tuple[str, float]]]]] = {
    "a_change_in_the_middle": ("an [owl:cat:0.5]", [[("an owl", 1)]] * 2 + [[("an cat", 1)]] * 2),
    "words_that_take_turns": ("an [owl|cat]", [[("an owl", 1)], [("an cat", 1)]] * 2),
    "and": ("an owl AND a cat :0.6", [[("an owl", 1), ("a cat", 0.6)]] * 4),
    "and_with_changes": (
        "an [owl:cat:1] AND fog:-0.4 AND rain",
        [[("an owl", 1), ("fog", -0.4), ("rain", 1)]] + [[("an cat", 1), ("fog", -0.4), ("rain", 1)]] * 3,
    ),
}


@pytest.mark.parametrize("case", list(CASES))
def test_each_step_has_its_prompts(family: Loaded, case: str) -> None:
    prompt, steps = CASES[case]
    wanted = wanted_of(family, prompt)
    assert gap(final_latents(family.ours, wanted), theirs(family, wanted, steps)) < TOLERANCE


@pytest.fixture(scope="module")
def sd1(tmp_path_factory: pytest.TempPathFactory) -> Loaded:
    from tests.domains.inference.on_device.reference import reference_pipeline

    return Loaded(write_tiny_model(tmp_path_factory.mktemp("alone") / "sd1"), pipeline=reference_pipeline)


def test_guidance_counts_in_its_steps_alone(family: Loaded) -> None:
    """Outside of them the output is that of the prompt: as with a guidance of 1."""
    wanted = wanted_of(family, OWL, guidance_start_ratio=0.25, guidance_end_ratio=0.75)
    alone = [(OWL, 1 / wanted.guidance_scale)]
    steps = [alone, [(OWL, 1)], [(OWL, 1)], alone]
    assert gap(final_latents(family.ours, wanted), theirs(family, wanted, steps)) < TOLERANCE


def test_sdxl_is_told_the_sizes_that_were_asked_for(family: Loaded) -> None:
    if family.model.family != "sdxl":
        return
    told = SizeConditioning(original_px=(640, 512), target_px=(96, 64), crop_left_px=8, crop_top_px=16)
    wanted = wanted_of(family, OWL, steps=2, size_conditioning=told)
    shape = family_of(family.ours).latent_shape(wanted.width_px, wanted.height_px)
    theirs = family.theirs(
        prompt=OWL,
        negative_prompt=FOG,
        height=wanted.height_px,
        width=wanted.width_px,
        num_inference_steps=2,
        guidance_scale=wanted.guidance_scale,
        original_size=(512, 640),
        crops_coords_top_left=(16, 8),
        target_size=(64, 96),
        latents=torch.randn((1, *shape), generator=torch.Generator().manual_seed(wanted.seeds[0])),
        output_type="latent",
    ).images
    found = final_latents(family.ours, wanted)
    assert gap(found, theirs) < TOLERANCE
    assert gap(found, final_latents(family.ours, wanted_of(family, OWL, steps=2))) > TOLERANCE


def test_the_negative_prompt_changes_too(sd1: Loaded) -> None:
    changed = final_latents(sd1.ours, wanted_of(sd1, OWL, negative_prompt="[fog:rain:0]"))
    assert torch.equal(changed, final_latents(sd1.ours, wanted_of(sd1, OWL, negative_prompt="rain")))
    assert not torch.equal(changed, final_latents(sd1.ours, wanted_of(sd1, OWL, negative_prompt="fog")))


def test_the_parts_of_a_prompt_may_have_other_lengths(sd1: Loaded) -> None:
    long = ", ".join(["an owl"] * 40)
    how: dict[str, Any] = {"long_prompt": LongPrompt.CHUNK, "steps": 2}
    found = final_latents(sd1.ours, wanted_of(sd1, f"[a cat|{long}]", **how))
    assert torch.isfinite(found).all()
    assert torch.equal(found, final_latents(sd1.ours, wanted_of(sd1, f"[a cat:{long}:1]", **how)))


def test_an_edit_beyond_the_steps_is_told(sd1: Loaded) -> None:
    with torch.inference_mode():
        found = condition(sd1.ours, family_of(sd1.ours), wanted_of(sd1, "an [owl:cat:9]"), PromptCache())
    assert [(one.kind, one.field) for one in found.degradations] == [("prompt_edit_unused", "generation.prompt")]


PROMPTS = ("an [owl:cat:0.5]", "an owl AND a cat :0.6", "[fog|rain|an owl]", OWL)


def started(family: Loaded, wanted: ResolvedGeneration) -> Trajectory:
    ours, engine = family.ours, family_of(family.ours)
    found = condition(ours, engine, wanted, PromptCache())
    return begin(engine, wanted, ours.scheduler_config, found.conditions, ours.device, renew=found.renew)


def test_in_any_company_they_end_as_alone(sd1: Loaded) -> None:
    """One forward serves all four."""
    with torch.inference_mode():
        engine = family_of(sd1.ours)
        group: list[Trajectory] = []
        for place, prompt in enumerate(PROMPTS):
            one = wanted_of(sd1, prompt, seeds=(place, place + 9))
            found = condition(sd1.ours, engine, one, PromptCache())
            config = sd1.ours.scheduler_config
            group.append(begin(engine, one, config, found.conditions, sd1.ours.device, renew=found.renew))
        assert len({one.alike for one in group}) == 1
        assert [one.rows for one in group] == [4, 8, 4, 4]
        while not group[0].done:
            walk_together(group)
    for place, (prompt, one) in enumerate(zip(PROMPTS, group, strict=True)):
        alone = final_latents(sd1.ours, wanted_of(sd1, prompt, seeds=(place, place + 9)))
        assert gap(one.latents, alone) < TOLERANCE


@pytest.mark.parametrize("prompt", PROMPTS[:3])
def test_a_job_that_was_stopped_goes_on_bit_for_bit(sd1: Loaded, prompt: str, tmp_path: Path) -> None:
    wanted = wanted_of(sd1, prompt)
    with torch.inference_mode():
        first, second = started(sd1, wanted), started(sd1, wanted)
        for _ in range(3):
            walk_together([first])
        kept = packed(first, wanted)
        (tmp_path / "kept").write_bytes(kept)
        unpack(KeptFile(path=str(tmp_path / "kept"), sha256=hashlib.sha256(kept).hexdigest()), wanted, second)
        walk_together([second])
    assert torch.equal(second.latents, final_latents(sd1.ours, wanted))


def test_what_takes_turns_is_computed_once(sd1: Loaded) -> None:
    engine: Any = family_of(sd1.ours)
    with torch.inference_mode():
        found = condition(sd1.ours, engine, wanted_of(sd1, "[owl|cat]", steps=6), PromptCache())
        made = [found.renew(found.renew._with, step) for step in range(6)]  # pyright: ignore
    assert len({id(one) for one in made}) == 2
    assert found.renew.tensors()
