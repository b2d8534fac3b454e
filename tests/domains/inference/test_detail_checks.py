"""Detail passes: their faults by field, their choices, and the generation that makes a find anew."""

from typing import Any

import pytest
from msgspec.structs import replace

from domains.errors import DeviceOpsError, ErrorReason, InvalidRequest
from domains.inference.checks.request import violations
from domains.inference.controls import PictureSource
from domains.inference.details import DetailPass, ResolvedDetail
from domains.inference.detections import Wanted
from domains.inference.generation import Generation, ResolvedGeneration, Sampling
from domains.inference.hires import HiresPass
from domains.inference.image_prompts import ImagePrompt
from domains.inference.own_walk import OwnWalk
from domains.inference.pass_plan import PassKind, detectors_of, largest_batch, largest_px, passes_of, redraws_of
from domains.inference.references import Reference
from domains.inference.regions import Rectangle, Region
from domains.inference.resolution.request_files import RequestFiles
from domains.inference.resolution.resolve import resolve
from domains.inference.seed_variation import SeedVariation
from domains.inference.step_range import StepRange
from domains.model.kind import ModelKind
from domains.model.model import Model, ModelState
from tests.domains.inference.on_device.requests import embedded_model

SAMPLING = Sampling(steps=10, sampler="euler", seeds=(3, 9))


def detector(**changes: Any) -> Model:
    plain: dict[str, Any] = {
        "id": "faces",
        "kind": ModelKind.DETECTOR,
        "family": "",
        "state": ModelState.AVAILABLE,
        "sha256": "d" * 64,
    }
    return replace(embedded_model(), **{**plain, **changes})


def asked(*details: DetailPass, **changes: Any) -> Generation:
    told: dict[str, Any] = {"prompt": "a crowd", "sampling": SAMPLING, "detail_passes": details, **changes}
    return Generation(**told)


def resolved(*details: DetailPass, model: Model | None = None, **changes: Any) -> ResolvedGeneration:
    read = RequestFiles(detectors=[model or detector()] * len(details))
    return resolve(asked(*details, **changes), embedded_model(), read)


def sized(edge_px: int, **changes: Any) -> ResolvedGeneration:
    """A detail pass with an edge, of a model that differs."""
    one = asked(DetailPass(edge_px=edge_px), width_px=64, height_px=64)
    return resolve(one, replace(embedded_model(), **changes), RequestFiles(detectors=[detector()]))


ALONE: dict[str, dict[str, Any]] = {
    "detector.min_confidence_ratio": {"min_confidence": 1.1},
    "detector.min_area_ratio": {"min_area": -0.1},
    "detector.max_area_ratio": {"max_area": 2.0},
    "detector.max_count": {"max_count": 101},
    "detector.label": {"label": "hand"},
    "strength": {"strength": 1.5},
    "steps": {"steps": 1001},
    "dilation_px": {"dilation_px": 257},
    "blur_px": {"blur_px": 51},
    "padding_px": {"padding_px": -1},
    "edge_px": {"edge_px": 516},
    "prompt": {"prompt": "x" * 40_000},
    "negative_prompt": {"negative_prompt": "x" * 40_000},
}


@pytest.mark.parametrize("field", ALONE)
def test_a_wrong_value_is_told_by_the_field_of_its_pass(field: str) -> None:
    found = violations(asked(DetailPass(), DetailPass(**ALONE[field])))
    assert [one.field for one in found.alone] == [f"generation.detail_passes[1].{field}"]
    assert not found.together


def test_shares_that_exclude_each_other_and_too_many_passes_are_told() -> None:
    (found,) = violations(asked(DetailPass(min_area=0.5, max_area=0.4))).alone
    assert found.field == "generation.detail_passes[0].detector.max_area_ratio"
    (found,) = violations(asked(*[DetailPass()] * 9)).alone
    assert (found.field, found.allowed) == ("generation.detail_passes", "0..8 entries")


TOGETHER: dict[str, tuple[str, dict[str, Any]]] = {
    "seamless_x": ("", {"seamless_x": True}),
    "seamless_y": ("", {"seamless_y": True}),
    "reference_images": ("", {"references": (Reference(image=PictureSource(blob_id="b")),)}),
    "last_step": ("", {"sampling": Sampling(part=StepRange(last_step=2))}),
    "noise levels": ("[0].steps", {"sampling": Sampling(sampler="euler", own=OwnWalk(sigmas=(9.0, 1.0, 0.0)))}),
}


@pytest.mark.parametrize("name", TOGETHER)
def test_what_does_not_go_with_a_detail_pass_is_told(name: str) -> None:
    field, changes = TOGETHER[name]
    found = violations(asked(DetailPass(steps=4), **changes))
    assert [one.field for one in found.together] == [f"generation.detail_passes{field}"], found
    assert "leave" in found.together[0].message


def test_an_image_prompt_guides_finds_unless_it_has_a_region() -> None:
    source = PictureSource(blob_id="b")
    shown = [ImagePrompt(model_id="a", images=(source,), region=region) for region in (None, source)]
    (found,) = violations(asked(DetailPass(), image_prompts=tuple(shown))).together
    assert found.field == "generation.image_prompts[1].region"


def test_what_is_left_open_is_as_in_the_generation() -> None:
    (found,) = resolved(DetailPass()).detail_passes
    model = embedded_model()
    assert found == ResolvedDetail(
        detector_model_id="faces",
        detector_sha256="d" * 64,
        wanted=Wanted(label="face", min_confidence=0.5, min_area=0.0, max_area=1.0, max_count=100),
        prompt="",
        negative_prompt="",
        strength=0.4,
        steps=10,
        dilation_px=4,
        blur_px=4,
        padding_px=32,
        width_px=model.native_width_px,
        height_px=model.native_height_px,
    )
    larger = resolved(DetailPass(edge_px=512, steps=20)).detail_passes[0]
    assert (larger.width_px, larger.height_px, larger.steps) == (512, 512, 20)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"kind": ModelKind.UPSCALER}, ErrorReason.MODEL_INCOMPATIBLE),
        ({"state": ModelState.CORRUPT, "problem": "it is cut off"}, ErrorReason.MODEL_CORRUPT),
    ],
)
def test_a_model_that_finds_nothing_is_refused(changes: dict[str, Any], reason: ErrorReason) -> None:
    with pytest.raises(DeviceOpsError) as raised:
        resolved(DetailPass(), model=detector(**changes))
    assert raised.value.reason is reason
    assert "faces" in raised.value.message


@pytest.mark.parametrize(
    ("changes", "edge_px", "says"),
    [
        ({"family": "flux1", "prediction_type": "flow"}, 72, "multiples of 16; 72 is none"),
        ({"native_width_px": 0, "native_height_px": 0}, 0, "no native size"),
        ({"native_width_px": 32, "native_height_px": 32}, 0, "no native size"),
        ({"native_width_px": 64, "native_height_px": 4096}, 0, "no native size"),
    ],
)
def test_a_find_that_the_model_makes_at_no_size_is_refused(changes: dict[str, Any], edge_px: int, says: str) -> None:
    with pytest.raises(InvalidRequest, match=says) as raised:
        sized(edge_px, **changes)
    (violation,) = raised.value.violations
    assert violation.field == "generation.detail_passes[0].edge_px"
    assert violation.allowed.startswith("64..2048, a multiple of ")
    assert raised.value.reason is ErrorReason.UNSUPPORTED_COMBINATION


@pytest.mark.parametrize(
    ("native", "edge_px", "size"),
    [
        ((0, 0), 64, (64, 64)),
        ((64, 64), 0, (64, 64)),
        ((512, 256), 1024, (1024, 512)),
        ((2048, 1024), 0, (2048, 1024)),
        ((640, 512), 256, (256, 208)),
    ],
)
def test_a_find_has_the_models_native_shape(native: tuple[int, int], edge_px: int, size: tuple[int, int]) -> None:
    (found,) = sized(edge_px, native_width_px=native[0], native_height_px=native[1]).detail_passes
    assert (found.width_px, found.height_px) == size


def test_more_steps_than_the_sampler_takes_are_told_by_the_pass() -> None:
    lcm = Sampling(steps=4, sampler="lcm", seed=1)
    with pytest.raises(InvalidRequest) as raised:
        resolved(DetailPass(steps=1000), sampling=lcm)
    assert [one.field for one in raised.value.violations] == ["generation.detail_passes[0].steps"]


def test_a_find_is_a_zoomed_inpainting_with_the_seed_of_its_picture() -> None:
    varied = Sampling(steps=10, sampler="euler", seeds=(3, 9), seed_variation=SeedVariation(seed=5, strength=0.2))
    whole = resolved(
        DetailPass(prompt="a face", strength=0.3),
        DetailPass(negative_prompt="blur", padding_px=8),
        sampling=varied,
        second_prompt="",
        hires_pass=HiresPass(scale=2.0),
        regions=(),
    )
    first, second = redraws_of(whole)
    assert (first.prompt, first.negative_prompt) == ("a face", "")
    assert (second.prompt, second.negative_prompt) == ("a crowd", "blur")
    assert first.seeds == (3,)
    assert first.seed_variation is not None
    assert first.seed_variation.seeds == (5,)
    assert (first.computed_steps, first.steps) == (3, 10)
    assert second.mask is not None
    assert second.mask.zoom_padding_px == 8
    assert first.init_image is not None
    assert first.init_image.own_size_px == whole.result_px == first.input_px
    assert (first.hires_pass, first.detail_passes, first.regions) == (None, (), ())
    assert [one.kind for one in passes_of(whole)] == [PassKind.FIRST, PassKind.HIRES]
    assert detectors_of(whole) == ("faces",)


def test_the_size_of_finds_counts_for_memory_where_it_is_the_largest() -> None:
    small = resolved(DetailPass(edge_px=1024), width_px=128, height_px=64, sampling=Sampling(seeds=(1, 2), steps=4))
    assert largest_batch(small) == (1024, 1024, 1)
    assert largest_px(small) == (128, 64)
    assert largest_batch(resolved(DetailPass(edge_px=64))) == (256, 256, 2)


def test_regions_do_not_reach_into_finds() -> None:
    left = Region(rectangle=Rectangle(left_px=0, top_px=0, width_px=64, height_px=64), prompt="a lemon")
    read = RequestFiles(detectors=[detector()], regions=[None], region_loras=[[]])
    whole = resolve(asked(DetailPass(), regions=(left,)), embedded_model(), read)
    assert whole.regions
    assert redraws_of(whole)[0].regions == ()
