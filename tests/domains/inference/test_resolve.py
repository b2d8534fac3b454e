"""Resolving: what a request leaves open is the model's choice, and a model's choice is checked too."""

import msgspec
import pytest

from domains.errors import ErrorReason, InvalidRequest
from domains.inference.family_fields import unread
from domains.inference.generation import Generation, Sampling, WeightedPrompt
from domains.inference.prompts import LongPrompt, Syntax
from domains.inference.resolution.resolve import resolve, seeds
from domains.inference.samplers import SAMPLERS
from domains.model.families import FAMILIES
from domains.model.model import Model, ModelState
from domains.model.sampler_names import schedule_of as own_schedule


def a_model(width_px: int, height_px: int) -> Model:
    return Model(
        id="m",
        display_name="M",
        family="sd1",
        folder="/m",
        components=(),
        size_bytes=1,
        sha256="0" * 64,
        state=ModelState.AVAILABLE,
        native_width_px=width_px,
        native_height_px=height_px,
    )


def test_the_models_own_size_is_the_default() -> None:
    resolved = resolve(Generation(prompt="an owl"), a_model(512, 640))
    assert (resolved.width_px, resolved.height_px) == (512, 640)


@pytest.mark.parametrize("edge_px", [0, 56, 8192, 65_536, 516])
def test_a_model_without_a_size_that_can_be_made_asks_for_one(edge_px: int) -> None:
    with pytest.raises(InvalidRequest) as told:
        resolve(Generation(prompt="an owl"), a_model(edge_px, edge_px))
    assert told.value.reason is ErrorReason.UNSUPPORTED_COMBINATION
    assert [one.field for one in told.value.violations] == ["generation.width_px", "generation.height_px"]
    asked = Generation(prompt="an owl", width_px=64, height_px=72)
    assert resolve(asked, a_model(edge_px, edge_px)).height_px == 72


@pytest.mark.parametrize(
    ("config", "sampler", "schedule"),
    [
        ({"use_karras_sigmas": True}, "dpmpp_2m", "karras"),
        ({"use_exponential_sigmas": True}, "unipc", "exponential"),
        ({"use_karras_sigmas": True}, "ddim", "normal"),
        ({"use_beta_sigmas": True}, "dpmpp_2m", "beta"),
        ({"use_karras_sigmas": False}, "dpmpp_2m", "normal"),
    ],
)
def test_the_models_own_sigma_schedule_counts_where_the_sampler_takes_it(
    config: dict[str, bool], sampler: str, schedule: str
) -> None:
    model = msgspec.structs.replace(
        a_model(64, 64), default_sampler=sampler, default_sigma_schedule=own_schedule(config)
    )
    resolved = resolve(Generation(prompt="an owl"), model)
    assert (resolved.sampler, resolved.sigma_schedule) == (sampler, schedule)
    plain = resolve(Generation(prompt="an owl", sampling=Sampling(sigma_schedule="normal")), model)
    assert plain.sigma_schedule == "normal"


@pytest.mark.parametrize("sampler", [name for name, one in SAMPLERS.items() if not one.eta])
@pytest.mark.parametrize("named", [True, False])
def test_eta_is_refused_for_a_sampler_that_does_not_list_it(sampler: str, named: bool) -> None:
    model = msgspec.structs.replace(a_model(64, 64), default_sampler=sampler)
    with pytest.raises(InvalidRequest) as told:
        resolve(Generation(prompt="an owl", sampling=Sampling(sampler=sampler if named else "", eta=0.5)), model)
    assert told.value.reason is ErrorReason.UNSUPPORTED_COMBINATION
    assert [one.field for one in told.value.violations] == ["generation.sampling.eta"]


def test_the_steps_of_a_request_that_names_none_can_be_walked() -> None:
    model = msgspec.structs.replace(a_model(64, 64), train_steps=10)
    asked = Generation(prompt="an owl", sampling=Sampling(sampler="ddim"))
    assert resolve(asked, model).steps == 10
    assert resolve(asked, a_model(64, 64)).steps == SAMPLERS["ddim"].recommended_steps


@pytest.mark.parametrize(
    ("width_px", "message"),
    [
        (5, "5 is not within 64..4096"),
        (65, "65 is no multiple of 8; 64 or 72 is"),
        (4095, "4095 is no multiple of 8; 4088 or 4096 is"),
    ],
)
def test_a_wrong_edge_is_told_with_all_that_is_allowed(width_px: int, message: str) -> None:
    with pytest.raises(InvalidRequest) as told:
        resolve(Generation(prompt="an owl", width_px=width_px, height_px=64), a_model(64, 64))
    (violation,) = told.value.violations
    assert (violation.field, violation.message) == ("generation.width_px", message)
    assert violation.allowed == "64..4096, a multiple of 8"


READ_OTHERWISE: dict[str, Generation] = {
    "second_prompt": Generation(prompt="an owl", second_prompt="fog"),
    "third_negative_prompt": Generation(prompt="an owl", third_negative_prompt="fog"),
    "clip_skip": Generation(prompt="an owl", clip_skip=1),
    "blended_prompts": Generation(prompt="an owl", blended_prompts=(WeightedPrompt(prompt="fog"),)),
    "prompt_syntax": Generation(prompt="an owl", prompt_syntax=Syntax.A1111),
    "long_prompt": Generation(prompt="an owl", long_prompt=LongPrompt.CHUNK),
}
FAMILIES_THAT_READ = {
    "sd1": {"clip_skip", "blended_prompts", "prompt_syntax", "long_prompt"},
    "sdxl": {"second_prompt", "clip_skip", "blended_prompts", "prompt_syntax", "long_prompt"},
    "sd3": {"second_prompt", "third_negative_prompt"},
    "chroma": set[str](),
}


@pytest.mark.parametrize("family", FAMILIES_THAT_READ)
@pytest.mark.parametrize("field", READ_OTHERWISE)
def test_a_way_to_read_prompts_that_a_family_lacks_is_refused(family: str, field: str) -> None:
    model = msgspec.structs.replace(
        a_model(512, 512), family=family, prediction_type=FAMILIES[family].prediction_types[0]
    )
    if field in FAMILIES_THAT_READ[family]:
        assert getattr(resolve(READ_OTHERWISE[field], model), field) == filled(READ_OTHERWISE[field])[field]
        return
    with pytest.raises(InvalidRequest) as refused:
        resolve(READ_OTHERWISE[field], model)
    assert refused.value.reason is ErrorReason.UNSUPPORTED_COMBINATION
    assert [one.field for one in refused.value.violations] == [f"generation.{field}"]


@pytest.mark.parametrize(
    ("field", "families"),
    [
        ("sampling.distilled_guidance", {"flux1", "flux2"}),
        ("sampling.image_guidance_scale", {"sd1", "sdxl"}),
        ("sampling.timestep_spacing", {"sd1", "sd2", "sdxl", "sdxl_refiner", "kolors", "pixart"}),
        ("clip_skip", {"sd1", "sd2", "sdxl", "sdxl_refiner"}),
        ("seamless_x", {"sd1", "sd2", "sdxl", "sdxl_refiner", "kolors"}),
        ("controls.control_type", {"sdxl", "flux1"}),
        ("refiner.model_id", {"sdxl"}),
        ("second_prompt", {"sdxl", "sd3", "flux1"}),
        ("third_prompt", {"sd3"}),
    ],
)
def test_a_field_has_a_meaning_for_the_families_that_read_it(field: str, families: set[str]) -> None:
    assert {name for name, family in FAMILIES.items() if field not in unread(family)} == families


def filled(asked: Generation) -> dict[str, object]:
    """The request's ways to read prompts, as a resolved one says them."""
    return {
        "second_prompt": asked.second_prompt,
        "third_negative_prompt": asked.third_negative_prompt,
        "clip_skip": asked.clip_skip or 0,
        "prompt_syntax": asked.prompt_syntax,
        "long_prompt": asked.long_prompt,
        "blended_prompts": tuple(msgspec.structs.replace(one, weight=1.0) for one in asked.blended_prompts),
    }


@pytest.mark.parametrize(
    ("asked", "field"),
    [
        (Generation(prompt="a", blended_prompts=(WeightedPrompt(prompt="b", weight=-1.0),)), "blended_prompts"),
        (Generation(prompt="a", blended_prompts=(WeightedPrompt(prompt="b"),) * 17), "blended_prompts"),
        (Generation(prompt="a", blended_prompts=(WeightedPrompt(prompt="x AND y"),)), "blended_prompts[0].prompt"),
        (Generation(prompt="a", second_prompt="x AND y"), "second_prompt"),
    ],
)
def test_prompts_that_cannot_be_read_are_refused_by_field(asked: Generation, field: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        resolve(msgspec.structs.replace(asked, prompt_syntax=Syntax.A1111), a_model(512, 512))
    assert f"generation.{field}" in [one.field for one in refused.value.violations]


def test_seeds_follow_each_other_and_begin_again_after_the_last_one() -> None:
    assert seeds(5, 3) == (5, 6, 7)
    assert seeds(2**63 - 2, 3) == (2**63 - 2, 2**63 - 1, 0)
    assert seeds(0, 1) == (0,)
    drawn = [seeds(None, 2) for _ in range(20)]
    assert all(0 <= first < 2**32 and second == first + 1 for first, second in drawn)
    assert len({*drawn}) > 1
