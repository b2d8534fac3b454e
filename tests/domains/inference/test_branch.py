"""What a branch takes from the generation that it continues, and in what it may differ."""

from typing import Any

import msgspec
import pytest

from domains.errors import InvalidRequest
from domains.inference import branch as branches
from domains.inference.branch import check_branch, filled
from domains.inference.checks.request import Checked, checked
from domains.inference.components import ComponentSource
from domains.inference.generation import Generation, Sampling
from domains.inference.own_walk import OwnWalk
from domains.inference.resolution.resolve import resolve
from domains.inference.seed_variation import SeedVariation
from domains.inference.step_range import StepRange
from tests.domains.inference.on_device.requests import embedded_model

SOURCE = Generation(
    prompt="an owl",
    width_px=64,
    height_px=128,
    image_count=2,
    sampling=Sampling(sampler="ddim", steps=7, guidance_scale=3.0, seed=5, eta=0.5),
)
RESOLVED = resolve(SOURCE, embedded_model())


def branch(**own: object) -> Generation:
    given = checked(Generation(**{"prompt": "a whale", **own}))  # pyright: ignore[reportArgumentType]  # by name
    return filled(given, SOURCE, RESOLVED).asked


VARIED = Sampling(
    sampler="euler",
    steps=9,
    seeds=(5, 8),
    guidance_scale=0.0,
    guidance_rescale=0.25,
    guidance_start_ratio=0.125,
    guidance_end_ratio=0.5,
    seed_variation=SeedVariation(seed=3, strength=0.25),
    part=StepRange(last_step=6),
)


@pytest.mark.parametrize(
    "source",
    [
        SOURCE,
        msgspec.structs.replace(SOURCE, sampling=VARIED, seamless_x=True),
        Generation(prompt="o", seamless_y=True),
    ],
)
def test_what_a_branch_leaves_open_is_as_in_its_source(source: Generation) -> None:
    resolved = resolve(source, embedded_model())
    found = resolve(filled(checked(Generation(prompt="a whale")), source, resolved).asked, embedded_model())
    assert found == msgspec.structs.replace(resolved, prompt="a whale")
    check_branch(found, resolved, "job-1")


def test_a_branch_is_guided_as_it_says_itself() -> None:
    source = msgspec.structs.replace(SOURCE, sampling=VARIED)
    own = Sampling(
        guidance_rescale=0.0,
        guidance_start_ratio=0.0,
        guidance_end_ratio=1.0,
        seed_variation=SeedVariation(seed=4, strength=0.5),
    )
    given = checked(Generation(prompt="a whale", sampling=own))
    found = resolve(filled(given, source, resolve(source, embedded_model())), embedded_model())
    assert (found.guidance_rescale, found.guidance_start_ratio, found.guidance_end_ratio) == (0.0, 0.0, 1.0)
    assert found.seed_variation is not None
    assert (found.seed_variation.seeds, found.seed_variation.strength) == ((4, 5), 0.5)


def test_prompts_guidance_and_previews_of_a_branch_are_its_own() -> None:
    found = resolve(branch(negative_prompt="blurry", sampling=Sampling(guidance_scale=8.0)), embedded_model())
    assert (found.prompt, found.negative_prompt, found.guidance_scale) == ("a whale", "blurry", 8.0)
    check_branch(found, RESOLVED, "job-1")


@pytest.mark.parametrize(
    ("field", "change"),
    [
        ("sampling.seeds", {"seeds": (5, 9)}),
        ("sampling.sampler", {"sampler": "euler"}),
        ("sampling.sigma_schedule", {"sigma_schedule": "karras"}),
        ("sampling.steps", {"steps": 8}),
        ("sampling.eta", {"eta": 0.1}),
        ("sampling.sigmas", {"own": OwnWalk(sigmas=(9.0, 0.0))}),
        ("sampling.flow_shift", {"own": OwnWalk(flow_shift=2.0)}),
        ("width_px", {"width_px": 128}),
        ("height_px", {"height_px": 64}),
        ("model_id", {"model_sha256": "0" * 64}),
    ],
)
def test_each_field_that_made_the_latents_is_refused_by_its_name(field: str, change: dict[str, object]) -> None:
    with pytest.raises(InvalidRequest) as told:
        check_branch(msgspec.structs.replace(RESOLVED, **change), RESOLVED, "job-1")
    assert [one.field for one in told.value.violations] == [f"generation.{field}"]
    assert "job-1" in told.value.violations[0].message


def test_a_branch_of_own_levels_keeps_them() -> None:
    source = Generation(prompt="an owl", sampling=Sampling(sampler="euler", own=OwnWalk(sigmas=(9.0, 3.0, 0.0))))
    resolved = resolve(source, embedded_model())
    given = filled(checked(Generation(prompt="a whale")), source, resolved)
    assert given.wrong.error() is None
    found = resolve(given, embedded_model())
    assert (found.own.sigmas, found.steps, found.sigma_schedule) == ((9.0, 3.0, 0.0), 2, "")
    check_branch(found, resolved, "job-1")


def test_everything_that_differs_is_named_at_once() -> None:
    other = msgspec.structs.replace(RESOLVED, steps=8, seeds=(1,), model_id="other", model_sha256="0")
    with pytest.raises(InvalidRequest) as told:
        check_branch(other, RESOLVED, "job-1")
    fields = [one.field for one in told.value.violations]
    assert fields == ["generation.model_id", "generation.sampling.seeds", "generation.sampling.steps"]


def test_a_branch_of_another_model_takes_no_components_along() -> None:
    source = msgspec.structs.replace(SOURCE, components=(ComponentSource(component_id="vae", model_id="two"),))
    cases: list[tuple[dict[str, Any], bool]] = [
        ({}, True),
        ({"model_id": "emoji-sd"}, False),
        ({"loaded_model_id": "emoji-sd@gpu"}, False),
    ]
    for own, kept in cases:
        given = checked(Generation(prompt="a whale", **own))
        assert bool(filled(given, source, RESOLVED).asked.components) is kept
    mine = (ComponentSource(component_id="unet", model_id="three"),)
    assert filled(checked(Generation(prompt="a whale", components=mine)), source, RESOLVED).asked.components == mine


INPUTS = (
    *("refiner", "init_latents", "hires_pass", "detail_passes", "components", "init_image", "mask", "outpaint"),
    *("references", "seamless_x", "seamless_y"),
)


@pytest.mark.parametrize("name", INPUTS)
def test_each_input_is_the_branchs_own_or_else_that_of_its_source(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """Without the checks, which most of these would need a whole request for."""

    def unchecked(whole: Generation) -> Generation:
        return whole

    def found(own: Generation, source: Generation) -> object:
        return getattr(filled(given(own), source, RESOLVED), name)

    def given(own: Generation) -> Checked:
        return checked(Generation(prompt="a whale"))._replace(asked=own)

    monkeypatch.setattr(branches, "checked", unchecked)
    nothing = Generation(prompt="a whale")
    mine, theirs = (msgspec.structs.replace(nothing, **{name: (word,)}) for word in ("mine", "theirs"))
    assert found(mine, theirs) == ("mine",)
    assert found(nothing, theirs) == ("theirs",)
    assert found(mine, nothing) == ("mine",)
    assert found(nothing, nothing) == getattr(nothing, name)


@pytest.mark.parametrize(
    ("own", "theirs", "expected"), [(None, 2.5, 2.5), (1.5, 2.5, 1.5), (0.0, 2.5, 0.0), (None, None, None)]
)
def test_a_scale_is_the_branchs_own_even_if_it_is_0(
    own: float | None, theirs: float | None, expected: float | None
) -> None:
    for name in ("image_guidance_scale", "distilled_guidance", "guidance_scale"):
        resolved = msgspec.structs.replace(RESOLVED, **{name: theirs})
        given = checked(Generation(prompt="a whale", sampling=Sampling(**{name: own})))  # pyright: ignore[reportArgumentType]
        assert getattr(filled(given, SOURCE, resolved).asked.sampling, name) == expected


def test_a_branch_has_its_sources_size_unless_it_names_an_edge() -> None:
    assert (branch().width_px, branch().height_px) == (64, 128)
    assert (branch(width_px=256).width_px, branch(width_px=256).height_px) == (256, None)
    assert (branch(height_px=256).width_px, branch(height_px=256).height_px) == (None, 256)


@pytest.mark.parametrize(
    ("mine", "theirs", "told"),
    [
        ((1, 2, 3, 4), (1, 2, 3, 4, 5), "is 1, 2, 3, 4 and was 1, 2, 3, 4 …"),
        ((9,), (), "is 9 and was "),
        (7, "euler", "is 7 and was euler"),
        (0.5, None, "is 0.5 and was none"),
        (SOURCE, None, "is another one and was none"),
    ],
)
def test_values_that_differ_are_told(mine: object, theirs: object, told: str) -> None:
    one, other = (msgspec.structs.replace(RESOLVED, seeds=value) for value in (mine, theirs))
    with pytest.raises(InvalidRequest) as refused:
        check_branch(one, other, "job-1")
    (violation,) = refused.value.violations
    kept = "in job job-1, whose latents are made with it; leave it out, or start from nothing"
    assert violation.message == f"{told} {kept}"
    assert refused.value.facts == {"continue_job_id": "job-1"}


@pytest.mark.parametrize(
    ("own", "model_id"), [({}, "emoji-sd"), ({"model_id": "other"}, "other"), ({"loaded_model_id": "other@gpu"}, "")]
)
def test_a_branch_is_made_by_its_sources_model_unless_it_names_one(own: dict[str, str], model_id: str) -> None:
    assert branch(**own).model_id == model_id


KARRAS = msgspec.structs.replace(RESOLVED, sigma_schedule="karras")


@pytest.mark.parametrize(
    ("own", "expected"),
    [
        (Sampling(), {"seed": None, "seeds": (5, 6), "sigma_schedule": "karras", "steps": 7}),
        (Sampling(seed=9), {"seed": 9, "seeds": ()}),
        (Sampling(seeds=(1, 2)), {"seed": None, "seeds": (1, 2)}),
        (Sampling(sigma_schedule="beta", steps=4), {"sigma_schedule": "beta", "steps": 4}),
        (Sampling(own=OwnWalk(sigmas=(9.0, 3.0, 0.0))), {"sigma_schedule": "", "steps": None}),
        # What its source left open stays open.
        (Sampling(), {"guidance_rescale": None, "guidance_start_ratio": None, "guidance_end_ratio": None}),
    ],
)
def test_each_choice_of_sampling_is_the_branchs_own_or_else_that_of_its_source(
    own: Sampling, expected: dict[str, object]
) -> None:
    found = filled(checked(Generation(prompt="a whale", sampling=own)), SOURCE, KARRAS).asked.sampling
    assert {name: getattr(found, name) for name in expected} == expected
