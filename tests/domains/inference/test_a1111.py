"""The parameters text reads as A1111 writes it."""

import msgspec

from domains.inference.a1111 import parameters_of
from domains.inference.generation import EncodeOptions, Previews, ResolvedGeneration
from domains.inference.samplers import SAMPLERS

REQUEST = ResolvedGeneration(
    model_id="dreamer",
    model_sha256="ab",
    family="sd1",
    prompt="an owl, in the snow",
    negative_prompt="blurry",
    width_px=512,
    height_px=768,
    sampler="dpmpp_2m",
    sigma_schedule="karras",
    steps=20,
    guidance_scale=7.0,
    eta=0.0,
    seeds=(41, 42),
    output=EncodeOptions(a1111_parameters=True),
    previews=Previews(),
)


def test_the_text_is_prompts_and_one_line_of_settings() -> None:
    prompt, negative, settings = parameters_of(REQUEST, 1).split("\n")
    assert prompt == "an owl, in the snow"
    assert negative == "Negative prompt: blurry"
    assert settings.startswith(
        "Steps: 20, Sampler: DPM++ 2M, Schedule type: Karras, CFG scale: 7, Seed: 42, Size: 512x768, Model: dreamer, Version"
    )


def test_what_was_not_asked_for_is_not_said() -> None:
    plain = msgspec.structs.replace(REQUEST, negative_prompt="", sigma_schedule="normal", guidance_scale=7.5)
    text = parameters_of(plain, 0)
    assert "Negative prompt" not in text
    assert "Schedule type" not in text
    assert "CFG scale: 7.5, Seed: 41" in text


def test_a_value_that_would_split_the_line_is_quoted() -> None:
    assert 'Model: "a, b: c"' in parameters_of(msgspec.structs.replace(REQUEST, model_id="a, b: c"), 0)


def test_every_sampler_has_a_name() -> None:
    for sampler in SAMPLERS:
        assert "Sampler: " in parameters_of(msgspec.structs.replace(REQUEST, sampler=sampler), 0)
