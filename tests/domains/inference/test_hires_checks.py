"""The second pass and the passes of a generation: what cannot be is refused by its field, what is left open is as before."""

from typing import Any

import pytest
from msgspec.structs import replace

from domains.errors import ErrorReason, FailedPrecondition, InvalidRequest
from domains.inference import limits
from domains.inference.checks.hires import check_model, hires_size, resolved_hires, sampling_of
from domains.inference.checks.latents import latent_shape, resolved_latents
from domains.inference.checks.request import violations
from domains.inference.controls import Control, PictureSource
from domains.inference.generation import Generation, ResolvedGeneration, Sampling
from domains.inference.hires import HiresPass, ResolvedHires
from domains.inference.image_prompts import ImagePrompt
from domains.inference.latents import InitLatents, ReadLatents
from domains.inference.masks import InpaintMask, Outpaint
from domains.inference.own_walk import OwnWalk
from domains.inference.pass_plan import PassKind, largest_px, models_of, passes_of, steps_by_stage, upscaler_of
from domains.inference.refiner import RefinerPass, ResolvedRefiner
from domains.inference.regions import Region
from domains.inference.resampling import Resampling
from domains.inference.step_range import StepRange
from domains.model.kind import ModelKind
from domains.model.model import ModelState
from domains.progress import Stage
from tests.domains.inference.on_device.requests import embedded_model, request

LONG = "x" * limits.PROMPT_BYTES
PICTURE = PictureSource(blob_id="b-1")
ALONE: list[tuple[HiresPass, str]] = [
    (HiresPass(), ""),
    (HiresPass(scale=1.0, strength=0.0, steps=1, guidance_scale=0.0), ""),
    (HiresPass(scale=4.0, strength=1.0, steps=1000, guidance_scale=50.0), ""),
    (HiresPass(scale=0.999), "scale"),
    (HiresPass(scale=4.001), "scale"),
    (HiresPass(strength=-0.001), "strength"),
    (HiresPass(strength=1.001), "strength"),
    (HiresPass(steps=0), "steps"),
    (HiresPass(steps=1001), "steps"),
    (HiresPass(guidance_scale=-0.001), "guidance_scale"),
    (HiresPass(guidance_scale=50.001), "guidance_scale"),
    (HiresPass(size_px=(64, 4096)), ""),
    (HiresPass(size_px=(56, 64)), "size.width_px"),
    (HiresPass(size_px=(64, 4104)), "size.height_px"),
    (HiresPass(size_px=(65, 64)), "size.width_px"),
    (HiresPass(sampler="euler", sigma_schedule="karras"), ""),
    (HiresPass(sampler="none"), "sampler"),
    (HiresPass(sigma_schedule="none"), "sigma_schedule"),
    (HiresPass(prompt=LONG, negative_prompt=LONG), ""),
    (HiresPass(prompt=LONG + "x"), "prompt"),
    (HiresPass(negative_prompt=LONG + "x"), "negative_prompt"),
]
TOGETHER: list[tuple[dict[str, Any], str]] = [
    ({}, ""),
    ({"mask": InpaintMask(blob_id="b-2")}, "hires_pass"),
    ({"outpaint": Outpaint(left_px=8)}, "hires_pass"),
    ({"controls": (Control(model_id="net", image=PICTURE),)}, ""),
    ({"sampling": Sampling(part=StepRange(last_step=5))}, "hires_pass"),
    ({"image_prompts": (ImagePrompt(model_id="a", images=(PICTURE,)),)}, ""),
    (
        {
            "image_prompts": (ImagePrompt(model_id="a", images=(PICTURE,)),),
            "hires_pass": HiresPass(model_id="other"),
        },
        "",
    ),
]


@pytest.mark.parametrize(("hires", "field"), ALONE)
def test_a_fault_of_the_second_pass_is_refused_by_its_field(hires: HiresPass, field: str) -> None:
    found = [one.field for one in violations(Generation(prompt="p", hires_pass=hires)).alone]
    assert found == ([f"generation.hires_pass.{field}"] if field else [])


@pytest.mark.parametrize(("changes", "field"), TOGETHER)
def test_what_a_second_pass_cannot_be_with_is_refused(changes: dict[str, Any], field: str) -> None:
    plain: dict[str, Any] = {"hires_pass": HiresPass()}
    found = [one.field for one in violations(Generation(prompt="p", **plain | changes)).together]
    assert [one for one in found if "hires" in one] == ([f"generation.{field}"] if field else [])


@pytest.mark.parametrize(
    ("changes", "refused"),
    [
        ({"image_prompts": (ImagePrompt(model_id="a", images=(PICTURE,)),)}, False),
        ({"controls": (Control(model_id="net", image=PICTURE),)}, False),
        ({"regions": (Region(prompt="a cat", mask=PICTURE),)}, True),
    ],
)
def test_what_guides_the_base_alone_goes_with_a_refiner(changes: dict[str, Any], refused: bool) -> None:
    asked = Generation(prompt="p", refiner=RefinerPass(model_id="refiner"), **changes)
    wrong = violations(asked)
    assert (wrong.alone, [one.field for one in wrong.together]) == ((), ["generation.refiner"] if refused else [])


@pytest.mark.parametrize(
    ("asked", "size"),
    [
        (HiresPass(), (128, 256)),
        (HiresPass(scale=1.0), (64, 128)),
        (HiresPass(scale=1.05), (64, 136)),
        (HiresPass(size_px=(64, 128)), (64, 128)),
        (HiresPass(size_px=(72, 136)), (72, 136)),
        (HiresPass(size_px=(64, 136)), (64, 136)),
        (HiresPass(size_px=(72, 128)), (72, 128)),
    ],
)
def test_the_second_pass_has_the_asked_size_or_twice_the_first(asked: HiresPass, size: tuple[int, int]) -> None:
    assert hires_size(asked, (64, 128), embedded_model()) == size


@pytest.mark.parametrize(
    ("asked", "first", "field", "reason"),
    [
        (HiresPass(size_px=(56, 128)), (64, 128), "size", ErrorReason.INVALID_FIELD),
        (HiresPass(size_px=(64, 120)), (64, 128), "size", ErrorReason.INVALID_FIELD),
        (HiresPass(scale=2.0), (2056, 64), "scale", ErrorReason.INVALID_FIELD),
        (HiresPass(scale=2.0), (64, 2056), "scale", ErrorReason.INVALID_FIELD),
        (HiresPass(size_px=(68, 128)), (64, 128), "size", ErrorReason.UNSUPPORTED_COMBINATION),
        (HiresPass(size_px=(64, 132)), (64, 128), "size", ErrorReason.UNSUPPORTED_COMBINATION),
    ],
)
def test_a_size_that_cannot_be_is_refused(
    asked: HiresPass, first: tuple[int, int], field: str, reason: ErrorReason
) -> None:
    with pytest.raises(InvalidRequest) as refused:
        hires_size(asked, first, embedded_model())
    assert [one.field for one in refused.value.violations] == [f"generation.hires_pass.{field}"]
    assert [one.allowed for one in refused.value.violations] == ["64..4096, a multiple of 8"]
    assert refused.value.reason is reason


def test_the_largest_edge_is_taken() -> None:
    assert hires_size(HiresPass(scale=2.0), (2048, 64), embedded_model()) == (4096, 128)


def test_a_model_of_another_family_kind_or_state_makes_no_second_pass() -> None:
    base = embedded_model()
    check_model(replace(base, id="other"), base)
    for changes, what in (
        ({"family": "sdxl"}, "of sdxl,"),
        ({"variant": "inpainting"}, r"of sd1 \(inpainting\), and model emoji-sd of sd1;"),
        ({"family": "", "kind": ModelKind.TEXT_ENCODER}, "a text encoder and no checkpoint;"),
    ):
        with pytest.raises(FailedPrecondition, match=f"of the second pass is {what}") as refused:
            check_model(replace(base, **changes), base)
        assert refused.value.reason is ErrorReason.MODEL_INCOMPATIBLE
    gone = replace(base, state=ModelState.CORRUPT, problem="a shard is missing")
    with pytest.raises(FailedPrecondition, match="a shard is missing") as refused:
        check_model(gone, base)
    assert refused.value.reason is ErrorReason.MODEL_CORRUPT


def test_the_sampling_of_the_second_pass_keeps_what_it_does_not_name() -> None:
    levels = OwnWalk(sigmas=(2.0, 1.0, 0.0))
    first = Sampling(sampler="ddim", sigma_schedule="karras", steps=20, eta=0.5, own=levels)
    assert sampling_of(HiresPass(), first) == first
    other = sampling_of(HiresPass(sampler="euler"), first)
    assert (other.sampler, other.sigma_schedule, other.steps, other.eta) == ("euler", "", 20, None)
    assert other.own.sigmas == ()
    steps = sampling_of(HiresPass(steps=7), first)
    assert (steps.sampler, steps.sigma_schedule, steps.steps, steps.eta) == ("ddim", "karras", 7, 0.5)
    assert sampling_of(HiresPass(sigma_schedule="normal"), first).own.sigmas == ()


def second(hires: HiresPass, **first: Any) -> ResolvedHires:
    model = embedded_model()
    asked = Generation(prompt="p", hires_pass=hires)
    found = resolved_hires(asked, request(model, eta=0.25, **first), model, 9, None)
    assert found is not None
    return found


def test_what_the_second_pass_leaves_open_is_as_in_the_first() -> None:
    left = second(HiresPass())
    assert (left.strength, left.steps, left.sampler, left.sigma_schedule) == (0.5, 4, "dpmpp_2m", "normal")
    assert (left.guidance_scale, left.eta, left.filter, left.of_pixels) == (5.0, 0.25, Resampling.BICUBIC, False)
    own = second(HiresPass(strength=0.0, sampler="euler", guidance_scale=0.0, pixel_filter=Resampling.LANCZOS))
    assert (own.strength, own.steps, own.sampler, own.sigma_schedule) == (0.0, 9, "euler", "normal")
    assert (own.guidance_scale, own.eta, own.filter, own.of_pixels) == (0.0, None, Resampling.LANCZOS, True)
    assert second(HiresPass(steps=3)).eta == 0.25
    assert second(HiresPass(latent_filter=Resampling.AREA)).filter is Resampling.AREA
    assert second(HiresPass(steps=3), sigma_schedule="karras").sigma_schedule == "karras"
    assert second(HiresPass(sigma_schedule="exponential"), sigma_schedule="karras").sigma_schedule == "exponential"
    assert second(HiresPass(sampler="pndm"), sigma_schedule="karras").sigma_schedule == "normal"


def test_a_model_of_the_second_pass_is_named_with_its_hash() -> None:
    model = embedded_model()
    asked = Generation(prompt="p", hires_pass=HiresPass(model_id="other"))
    found = resolved_hires(asked, request(model), model, 9, None, replace(model, id="other", sha256="1" * 64))
    assert found is not None
    assert (found.model_id, found.model_sha256) == ("other", "1" * 64)
    assert resolved_hires(Generation(prompt="p"), request(model), model, 9, None) is None


def refiner(start_ratio: float) -> ResolvedRefiner:
    return ResolvedRefiner(
        model_id="refiner",
        model_sha256="2" * 64,
        family="sdxl_refiner",
        start_ratio=start_ratio,
        aesthetic_score=6.0,
        negative_aesthetic_score=2.5,
    )


def planned(**changes: Any) -> list[tuple[PassKind, int, range]]:
    plan = passes_of(request(embedded_model(), steps=10, **changes))
    return [(one.kind, one.model_index, one.resolved.visited) for one in plan]


@pytest.mark.parametrize(("start_ratio", "switch"), [(0.0, 0), (0.05, 1), (0.8, 8), (0.81, 9), (0.91, 10), (1.0, 10)])
def test_the_refiner_computes_the_steps_from_its_share_on(start_ratio: float, switch: int) -> None:
    first = [(PassKind.FIRST, 0, range(switch))] if switch else []
    last = [(PassKind.REFINER, 1, range(switch, 10))] if switch < 10 else []
    assert planned(refiner=refiner(start_ratio)) == [*first, *last]


def test_a_refiner_goes_on_where_the_first_pass_was_asked_to_begin_and_end() -> None:
    part = StepRange(first_step=3, last_step=9)
    assert planned(refiner=refiner(0.5), part=part) == [
        (PassKind.FIRST, 0, range(3, 5)),
        (PassKind.REFINER, 1, range(5, 9)),
    ]
    assert planned(refiner=refiner(0.2), part=part) == [(PassKind.REFINER, 1, range(3, 9))]
    assert planned(refiner=refiner(0.95), part=part) == [(PassKind.FIRST, 0, range(3, 9))]


def two_passes(**hires: Any) -> ResolvedGeneration:
    model = embedded_model()
    return request(
        model, steps=10, hires_pass=replace(second(HiresPass()), **hires), negative_prompt="n", second_prompt="s"
    )


def test_the_second_pass_starts_from_latents_at_its_own_size_with_its_own_prompts() -> None:
    resolved = two_passes(width_px=512, height_px=384, steps=6)
    first, again = passes_of(resolved)
    assert (again.kind, again.stage, again.model_index) == (PassKind.HIRES, Stage.HIRES, 0)
    assert (again.resolved.width_px, again.resolved.height_px, again.resolved.steps) == (512, 384, 6)
    assert again.resolved.visited == range(3, 6)
    kept = (again.resolved.prompt, again.resolved.negative_prompt, again.resolved.second_prompt)
    assert kept == ("owl", "n", "s")
    assert first.resolved.hires_pass is None
    assert largest_px(resolved) == (512, 384)
    assert steps_by_stage(resolved) == {Stage.DENOISING: 10, Stage.HIRES: 3}
    own = passes_of(two_passes(prompt="fox", negative_prompt="m"))[1].resolved
    assert (own.prompt, own.negative_prompt, own.second_prompt) == ("fox", "m", "")


def test_models_of_a_run_are_the_base_the_refiner_and_that_of_the_second_pass() -> None:
    resolved = replace(two_passes(model_id="other", model_sha256="1" * 64), refiner=refiner(0.5))
    assert models_of(resolved) == ("emoji-sd", "refiner", "other")
    assert [one.model_index for one in passes_of(resolved)] == [0, 1, 2]
    assert passes_of(resolved)[2].resolved.model_id == "other"
    same = replace(two_passes(), refiner=refiner(0.5))
    assert models_of(same) == ("emoji-sd", "refiner")
    assert [one.model_index for one in passes_of(same)] == [0, 1, 0]
    assert upscaler_of(request(embedded_model())) == upscaler_of(same) == ""
    assert upscaler_of(two_passes(upscaler_model_id="larger")) == "larger"


def test_latents_have_the_shape_that_size_model_and_pictures_ask_for() -> None:
    model = embedded_model()
    channels, height, width = shape = latent_shape(model, 64, 128)
    assert height == 2 * width
    asked = Generation(prompt="p", init_latents=InitLatents(blob_id="b-1"))

    def taken(*read: int) -> bool:
        latents = ReadLatents(blob_id="b-1", sha256="0" * 64, shape=read)
        try:
            found = resolved_latents(asked, latents, model, (64, 128), 3)
        except InvalidRequest:
            return False
        return found is not None and found.strength == 1.0

    assert taken(1, *shape)
    assert taken(3, *shape)
    for wrong in ((2, *shape), (1, channels, width, height), (1, channels + 1, height, width)):
        assert not taken(*wrong)
