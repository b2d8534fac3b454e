"""A manifest says enough to make the picture again, and says it the same way each time."""

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from domains.errors import ErrorReason, InvalidRequest
from domains.inference.generation import EncodeOptions, Previews, ResolvedGeneration
from domains.inference.manifest import manifest_of, parse, to_json

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
