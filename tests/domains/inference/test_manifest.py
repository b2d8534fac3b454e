"""A manifest says enough to make the picture again, and says it the same way each time."""

import hashlib

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from domains.errors import ErrorReason, InvalidRequest
from domains.inference.generation import EncodeOptions, ManifestDetail, Previews, ResolvedGeneration
from domains.inference.manifest import manifest_of, parse, to_json
from domains.inference.prompts import LongPrompt, Syntax

TEXTS = (
    *("prompt", "negative_prompt", "second_prompt", "second_negative_prompt"),
    *("third_prompt", "third_negative_prompt"),
)
"""Fields of a request with words of its own."""
REQUESTS = st.builds(
    ResolvedGeneration,
    model_id=st.text(),
    model_sha256=st.text(),
    family=st.just("sd1"),
    prompt=st.text(),
    negative_prompt=st.text(),
    width_px=st.integers(64, 4096),
    height_px=st.integers(64, 4096),
    sampler=st.sampled_from(["euler", "ddim"]),
    sigma_schedule=st.sampled_from(["normal", "karras"]),
    steps=st.integers(1, 1000),
    guidance_scale=st.floats(0, 50),
    eta=st.none() | st.floats(0, 1),
    seeds=st.lists(st.integers(0, 2**63 - 1), min_size=1, max_size=4).map(tuple),
    output=st.builds(EncodeOptions),
    previews=st.builds(Previews),
    second_prompt=st.text(),
    prompt_syntax=st.sampled_from(Syntax),
    long_prompt=st.sampled_from(LongPrompt),
)


@given(REQUESTS)
def test_what_is_written_is_read_back(request: ResolvedGeneration) -> None:
    for index, seed in enumerate(request.seeds):
        told = parse(to_json(manifest_of(request, index)))
        assert (told.request, told.seed, told.image_index) == (request, seed, index)


@given(REQUESTS)
def test_the_same_request_is_written_the_same(request: ResolvedGeneration) -> None:
    again = msgspec.json.decode(msgspec.json.encode(request), type=ResolvedGeneration)
    assert to_json(manifest_of(request, 0)) == to_json(manifest_of(again, 0))


@given(REQUESTS)
def test_a_recipe_is_the_manifest_with_hashes_for_prompts(request: ResolvedGeneration) -> None:
    asked = msgspec.structs.replace(request, output=EncodeOptions(manifest=ManifestDetail.RECIPE))
    recipe = parse(to_json(manifest_of(asked, 0)))
    assert recipe.detail is ManifestDetail.RECIPE
    for name in TEXTS:
        assert getattr(recipe.request, name) == hashlib.sha256(getattr(request, name).encode()).hexdigest()
    texts = {name: getattr(request, name) for name in TEXTS}
    assert msgspec.structs.replace(recipe.request, **texts) == asked


def test_no_word_of_a_prompt_is_left_in_a_recipe() -> None:
    """Fills every text of the request, so that a prompt added later is covered if its name ends in `prompt`."""
    texts = {name: f"secret {name}" for name in TEXTS} | {"blended_prompts": [{"prompt": "secret blended"}]}
    named = {field.name for field in msgspec.structs.fields(ResolvedGeneration) if "prompt" in field.name}
    assert named == {*texts, "prompt_syntax", "long_prompt", "image_prompts"}
    both = {"prompt": "secret inside", "negative_prompt": "secret outside"}
    texts["regions"] = [both]
    output = EncodeOptions(manifest=ManifestDetail.RECIPE)
    plain = {
        "model_id": "m",
        "model_sha256": "",
        "family": "sd1",
        "width_px": 64,
        "height_px": 64,
        "sampler": "euler",
        "sigma_schedule": "normal",
    }
    numbers = {"steps": 1, "guidance_scale": 1.0, "eta": 0.0, "seeds": (1,)}
    second = {"width_px": 128, "height_px": 128, "filter": "area", "of_pixels": False, "strength": 0.5, "steps": 1}
    second |= {"sampler": "euler", "sigma_schedule": "normal", "guidance_scale": 1.0, "eta": None, **both}
    request = msgspec.convert(
        {**plain, **numbers, **texts, "output": output, "previews": Previews(), "hires_pass": second},
        ResolvedGeneration,
    )
    assert "secret" not in to_json(manifest_of(request, 0))


@given(REQUESTS)
def test_the_manifest_does_not_depend_on_the_mark(request: ResolvedGeneration) -> None:
    unmarked = msgspec.structs.replace(request, output=EncodeOptions(provenance=False))
    assert to_json(manifest_of(unmarked, 0)) == to_json(manifest_of(request, 0))


@given(st.binary() | st.text())
def test_anything_else_is_refused_as_a_bad_image(data: bytes | str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        parse(data)
    assert refused.value.reason is ErrorReason.BAD_IMAGE


@given(REQUESTS)
def test_versions_of_what_computes_are_told(request: ResolvedGeneration) -> None:
    told = manifest_of(request, 0)
    assert told.deviceops
    assert set(told.libraries) >= {"torch", "diffusers", "transformers"}
    assert all(told.libraries.values())
