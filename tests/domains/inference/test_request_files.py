"""What a request names or hands in is judged against its model: what does not fit is refused by its field."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from domains.errors import DataLoss, ErrorReason, FailedPrecondition, InvalidRequest
from domains.inference import limits
from domains.inference.benchmark import benchmark_cases
from domains.inference.controls import Control, PictureSource, Preprocessing
from domains.inference.generation import Generation, ResolvedGeneration, Sampling
from domains.inference.hires import HiresPass
from domains.inference.image_fit import ImageFit
from domains.inference.image_prompts import ImagePrompt, ImagePromptMode
from domains.inference.init_image import InitImage
from domains.inference.input_picture import InputPicture
from domains.inference.loras import Lora, LoraComponent
from domains.inference.masks import InpaintMask, Outpaint
from domains.inference.prompts import Syntax
from domains.inference.refiner import RefinerPass
from domains.inference.regions import Rectangle, Region
from domains.inference.resolution.controls import ReadControl
from domains.inference.resolution.image_prompts import ReadImagePrompt
from domains.inference.resolution.request_files import NOTHING_READ, RequestFiles
from domains.inference.resolution.resolve import resolve
from domains.inference.textual_inversions import TextualInversion
from domains.model.benchmark import ModelBenchmark
from domains.model.detect.controls import UNION
from domains.model.detected_model import blank_model
from domains.model.image_encoders import Encoder, Need
from domains.model.kind import ModelKind
from domains.model.model import FileStamp, Model, ModelLayout, ModelState
from tests.domains.inference.on_device.requests import embedded_model

BASE = embedded_model()
SDXL = replace(BASE, family="sdxl")
SD3 = replace(BASE, family="sd3", prediction_type="flow")
SOURCE = PictureSource(blob_id="b-1")
INVALID, TOGETHER = ErrorReason.INVALID_FIELD, ErrorReason.UNSUPPORTED_COMBINATION


def entry(kind: ModelKind, name: str = "named", **changes: Any) -> Model:
    """A model of one file in the catalogue."""
    blank = blank_model(Path(f"/models/{name}.safetensors"), name, name, ModelLayout.FILE)
    stamp = FileStamp(path=f"{name}.safetensors", real=blank.folder, sha256="1" * 64)
    plain = {"kind": kind, "state": ModelState.AVAILABLE, "files": (stamp,), "sha256": "1" * 64}
    return replace(blank, **plain | changes)


def picture(width: int = 64, height: int = 64) -> InputPicture:
    return InputPicture(blob_id="b-1", sha256="0" * 64, width_px=width, height_px=height)


def asked(**changes: Any) -> Generation:
    plain: dict[str, Any] = {"prompt": "an owl", "width_px": 64, "height_px": 64, "sampling": Sampling(steps=4)}
    return Generation(**plain | changes)


def guided(model: Model, read: dict[str, Any] | None = None, **changes: Any) -> tuple[Generation, RequestFiles]:
    """A request with one control."""
    control: dict[str, Any] = {"model_id": model.id, "image": SOURCE, **changes}
    found: dict[str, Any] = {"model": model, "image": picture(), **(read or {})}
    return asked(controls=(Control(**control),)), RequestFiles(controls=[ReadControl(**found)])


def partly(generation: Generation, read: RequestFiles) -> tuple[Generation, RequestFiles]:
    """A request that makes a part of a picture."""
    masked = replace(generation, init_image=InitImage(blob_id="b-1"), mask=InpaintMask(blob_id="b-1"))
    return masked, replace(read, picture=picture(), mask=picture())


def shown(
    model: Model, encoder: Encoder | Need | None, mode: ImagePromptMode = ImagePromptMode.CONTENT_AND_STYLE
) -> tuple[Generation, RequestFiles]:
    """A request with one image prompt."""
    prompt = ImagePrompt(model_id=model.id, images=(SOURCE,), mode=mode)
    read = ReadImagePrompt(model=model, encoder=encoder, images=(picture(),))
    return asked(image_prompts=(prompt,)), RequestFiles(image_prompts=[read])


def words(*tokens: str) -> tuple[Generation, RequestFiles]:
    """A request with textual inversions whose files name no word."""
    named = [entry(ModelKind.TEXTUAL_INVERSION, f"word-{place}") for place in range(len(tokens))]
    inversions = tuple(TextualInversion(model_id=one.id, token=token) for one, token in zip(named, tokens, strict=True))
    return asked(textual_inversions=inversions), RequestFiles(words=named)


def styled(model: Model, *components: str) -> tuple[Generation, RequestFiles]:
    """A request with one LoRA."""
    weights = tuple(LoraComponent(component_id=one, weight=0.5) for one in components)
    return asked(loras=(Lora(model_id=model.id, components=weights),)), RequestFiles(loras=[model])


def regional(model: Model) -> tuple[Generation, RequestFiles]:
    """A request with a LoRA of one region."""
    box = Rectangle(left_px=0, top_px=0, width_px=8, height_px=8)
    region = Region(rectangle=box, loras=(Lora(model_id=model.id),))
    return asked(regions=(region,)), RequestFiles(regions=(None,), region_loras=[[model]])


def enlarged(**changes: Any) -> tuple[Generation, RequestFiles]:
    """A request with a second pass."""
    return asked(hires_pass=HiresPass(**changes)), NOTHING_READ


def enlarging(model: Model) -> tuple[Generation, RequestFiles]:
    """A request with a control of another size and a second pass."""
    generation, read = guided(model, {"image": picture(64, 72)})
    return replace(generation, hires_pass=HiresPass()), read


def _in_order(request: tuple[Generation, RequestFiles]) -> tuple[Generation, Model, RequestFiles]:
    return request[0], BASE, request[1]


ENCODER = Encoder(model=entry(ModelKind.IMAGE_ENCODER, "encoder"), edge_px=224)
NAMED: dict[str, tuple[Model, Model, Callable[[Model], tuple[Generation, RequestFiles]]]] = {
    "lora": (entry(ModelKind.LORA), BASE, styled),
    "lora of a region": (entry(ModelKind.LORA), BASE, regional),
    "textual inversion": (
        entry(ModelKind.TEXTUAL_INVERSION, token="owl"),
        BASE,
        lambda model: (asked(textual_inversions=(TextualInversion(model_id=model.id),)), RequestFiles(words=[model])),
    ),
    "ControlNet": (entry(ModelKind.CONTROLNET), BASE, guided),
    "T2I adapter": (entry(ModelKind.T2I_ADAPTER), BASE, guided),
    "IP-Adapter": (entry(ModelKind.IMAGE_PROMPT_ADAPTER), BASE, lambda model: shown(model, ENCODER)),
    "refiner": (
        entry(ModelKind.REFINER, family="sdxl_refiner"),
        SDXL,
        lambda model: (asked(refiner=RefinerPass(model_id=model.id)), RequestFiles(refiner=model)),
    ),
    "upscaler": (
        entry(ModelKind.UPSCALER),
        BASE,
        lambda model: (
            asked(hires_pass=HiresPass(upscaler_model_id=model.id)),
            RequestFiles(upscaler=model),
        ),
    ),
    "model of the second pass": (
        replace(BASE, id="named"),
        BASE,
        lambda model: (asked(hires_pass=HiresPass(model_id=model.id)), RequestFiles(hires=model)),
    ),
}
"""By what it is: an entry of the catalogue, the model of the request, and a request that names the entry."""
OTHERWISE: dict[str, tuple[dict[str, Any], ErrorReason, str]] = {
    "of another kind": ({"kind": ModelKind.DETECTOR}, ErrorReason.MODEL_INCOMPATIBLE, "detector|of the second pass is"),
    "damaged": ({"state": ModelState.CORRUPT, "problem": "it is cut off"}, ErrorReason.MODEL_CORRUPT, "it is cut off"),
}


@pytest.mark.parametrize("what", NAMED)
def test_a_whole_model_of_the_kind_that_a_field_takes_is_taken(what: str) -> None:
    model, base, request = NAMED[what]
    for known in (model, replace(model, compatible_families=(base.family, "sd2"))):
        generation, read = request(known)
        assert isinstance(resolve(generation, base, read), ResolvedGeneration)


@pytest.mark.parametrize("how", OTHERWISE)
@pytest.mark.parametrize("what", NAMED)
def test_a_model_of_another_kind_or_a_damaged_one_is_refused(what: str, how: str) -> None:
    model, base, request = NAMED[what]
    changes, reason, says = OTHERWISE[how]
    generation, read = request(replace(model, **changes))
    with pytest.raises(FailedPrecondition, match=says) as refused:
        resolve(generation, base, read)
    assert refused.value.reason is reason
    assert "named" in refused.value.message


@pytest.mark.parametrize("what", [what for what in NAMED if what not in ("upscaler", "model of the second pass")])
def test_a_model_that_is_made_for_another_family_is_refused(what: str) -> None:
    model, _, request = NAMED[what]
    generation, read = request(replace(model, compatible_families=("sd2", "flux1")))
    with pytest.raises(FailedPrecondition, match="model emoji-sd is of") as refused:
        resolve(generation, BASE, read)
    assert refused.value.reason is ErrorReason.MODEL_INCOMPATIBLE


NET, T2I = entry(ModelKind.CONTROLNET), entry(ModelKind.T2I_ADAPTER)
UNFIT: dict[str, tuple[tuple[Generation, RequestFiles], Model, ErrorReason, str]] = {
    "a map of another size": (guided(NET, {"image": picture(64, 72)}), BASE, INVALID, "controls[0].image"),
    "a map of another size than the first pass": (enlarging(NET), BASE, INVALID, "controls[0].image"),
    "a region of another size": (guided(NET, {"region": picture(72)}), BASE, INVALID, "controls[0].region"),
    "a missing part for a T2I adapter": (
        partly(*guided(T2I, preprocessing=Preprocessing(kind="inpaint"))),
        BASE,
        TOGETHER,
        "controls[0].preprocessing.inpaint",
    ),
    "a type for a net of one": (guided(NET, control_type="canny"), SDXL, TOGETHER, "controls[0].control_type"),
    "no type for a net of several": (guided(replace(NET, variant=UNION)), SDXL, TOGETHER, "controls[0].control_type"),
    "an unknown type": (
        guided(replace(NET, variant=UNION), control_type="blur"),
        SDXL,
        TOGETHER,
        "controls[0].control_type",
    ),
    "a mode that no layer is known for": (
        shown(entry(ModelKind.IMAGE_PROMPT_ADAPTER), ENCODER, mode=ImagePromptMode.STYLE),
        replace(BASE, family="sd2"),
        TOGETHER,
        "image_prompts[0].mode",
    ),
    "a word without a name": (words("a", ""), BASE, INVALID, "textual_inversions[1].token"),
    "a word for two": (words("owl", "Owl"), BASE, INVALID, "textual_inversions[1].token"),
    "a LoRA's weight of no component": (
        styled(entry(ModelKind.LORA), "unet", "wings"),
        BASE,
        INVALID,
        "loras[0].component_weights[1].component_id",
    ),
    "an edge between a family's multiples": ((asked(width_px=72), NOTHING_READ), SD3, TOGETHER, "width_px"),
    "a picture below the least edge": (
        (asked(width_px=None, height_px=None, init_image=InitImage(blob_id="b-1")), RequestFiles(picture=picture(63))),
        BASE,
        TOGETHER,
        "init_image.image",
    ),
    "a picture beyond the largest edge": (
        (
            asked(width_px=None, height_px=None, init_image=InitImage(blob_id="b-1")),
            RequestFiles(picture=picture(64, limits.EDGE_PX[1] + 8)),
        ),
        BASE,
        TOGETHER,
        "init_image.image",
    ),
    "a growth between a family's multiples": (
        (
            asked(init_image=InitImage(blob_id="b-1"), outpaint=Outpaint(left_px=8)),
            RequestFiles(picture=picture()),
        ),
        SD3,
        TOGETHER,
        "outpaint",
    ),
    "a growth beyond the largest edge": (
        (
            asked(height_px=4096, init_image=InitImage(blob_id="b-1"), outpaint=Outpaint(top_px=8)),
            RequestFiles(picture=picture(64, 4096)),
        ),
        BASE,
        INVALID,
        "outpaint",
    ),
    "more steps than were trained": (
        (asked(sampling=Sampling(sampler="ddim", steps=11)), NOTHING_READ),
        replace(BASE, train_steps=10),
        TOGETHER,
        "sampling.steps",
    ),
    "more steps of the second pass than were trained": (
        enlarged(sampler="ddim", steps=11),
        replace(BASE, train_steps=10),
        TOGETHER,
        "hires_pass.steps",
    ),
    "a schedule that the second pass's sampler does not take": (
        enlarged(sampler="ddim", sigma_schedule="karras"),
        BASE,
        TOGETHER,
        "hires_pass.sigma_schedule",
    ),
}


@pytest.mark.parametrize("case", UNFIT)
def test_what_does_not_fit_is_refused_by_its_field(case: str) -> None:
    (generation, read), model, reason, field = UNFIT[case]
    with pytest.raises(InvalidRequest) as refused:
        resolve(generation, model, read)
    assert [one.field for one in refused.value.violations] == [f"generation.{field}"]
    assert refused.value.reason is reason


FITS: dict[str, tuple[tuple[Generation, RequestFiles], Model]] = {
    "a map of another size that is brought there": (
        guided(NET, {"image": picture(72), "region": picture(80)}, fit=ImageFit.PAD),
        BASE,
    ),
    "a missing part for a net that may be made for it": (
        partly(*guided(NET, preprocessing=Preprocessing(kind="inpaint"))),
        BASE,
    ),
    "a type that the net knows": (guided(replace(NET, variant=UNION), control_type="canny"), SDXL),
    "two words": (words("owl", "cat"), BASE),
    "a LoRA's weight of a component": (styled(entry(ModelKind.LORA), "unet"), BASE),
    "a growth up to the largest edge": (
        (
            asked(height_px=4088, init_image=InitImage(blob_id="b-1"), outpaint=Outpaint(top_px=8)),
            RequestFiles(picture=picture(64, 4088)),
        ),
        BASE,
    ),
    "a picture between multiples": (
        (asked(width_px=None, height_px=None, init_image=InitImage(blob_id="b-1")), RequestFiles(picture=picture(71))),
        BASE,
    ),
    "as many steps as were trained": (
        (asked(sampling=Sampling(sampler="ddim", steps=10)), NOTHING_READ),
        replace(BASE, train_steps=10),
    ),
}


@pytest.mark.parametrize("case", FITS)
def test_what_just_fits_is_taken(case: str) -> None:
    (generation, read), model = FITS[case]
    assert isinstance(resolve(generation, model, read), ResolvedGeneration)


def test_what_a_request_leaves_open_of_the_models_that_it_names_is_chosen_and_what_it_says_is_kept() -> None:
    said: dict[str, Any] = {"weight": 0.0, "start_ratio": 0.25, "end_ratio": 0.5}
    for given, weight, start, end in (({}, 1.0, 0.0, 1.0), (said, 0.0, 0.25, 0.5)):
        model, _, _ = NAMED["lora"]
        lora = resolve(asked(loras=(Lora(model_id="named", **given),)), BASE, RequestFiles(loras=[model])).loras[0]
        adapter, encoder = entry(ModelKind.IMAGE_PROMPT_ADAPTER), replace(ENCODER, edge_px=336)
        prompt = ImagePrompt(model_id="named", images=(SOURCE,), **given)
        read = ReadImagePrompt(model=adapter, encoder=encoder, images=(picture(),), region=picture())
        shown = resolve(asked(image_prompts=(prompt,)), BASE, RequestFiles(image_prompts=[read])).image_prompts[0]
        control = resolve(*_in_order(guided(NET, **given))).controls[0]
        for one in (lora, shown, control):
            assert (one.model_id, one.model_sha256) == ("named", "1" * 64)
            assert (one.weight, one.start_ratio, one.end_ratio) == (weight, start, end)
        assert (shown.encoder_model_id, shown.edge_px, shown.negative_image) == ("encoder", 336, None)
        assert shown.region is not None

    plain = resolve(*_in_order(guided(NET))).controls[0]
    fitted = resolve(*_in_order(guided(T2I, {"region": picture()}, fit=ImageFit.PAD))).controls[0]
    assert (plain.fit, plain.region, plain.t2i_adapter) == (ImageFit.COVER, None, False)
    assert (fitted.fit, fitted.region, fitted.t2i_adapter) == (ImageFit.PAD, plain.image, True)


@pytest.mark.parametrize(
    ("read", "owned"),
    [
        (NOTHING_READ, False),
        (RequestFiles(loras=[NET], refiner=NET, regions=(None,)), False),
        (RequestFiles(picture=picture()), True),
        (RequestFiles(references=(picture(),)), True),
        (RequestFiles(controls=[ReadControl(model=NET, image=picture())]), True),
        (RequestFiles(regions=(None, picture())), True),
    ],
)
def test_a_job_keeps_the_pictures_that_were_read_for_it_and_no_models(read: RequestFiles, owned: bool) -> None:
    assert read.owned is owned


def test_a_generation_names_the_blobs_of_all_its_pictures_those_of_image_prompts_once() -> None:
    def blob(name: str) -> InputPicture:
        return InputPicture(blob_id=name, sha256="0" * 64, width_px=64, height_px=64)

    box = Rectangle(left_px=0, top_px=0, width_px=8, height_px=8)
    prompt = ImagePrompt(model_id="named", images=(SOURCE, SOURCE))
    generation = asked(
        init_image=InitImage(blob_id="start"),
        controls=(Control(model_id="named", image=SOURCE),),
        image_prompts=(prompt,),
        regions=(Region(mask=SOURCE), Region(rectangle=box)),
    )
    adapter = entry(ModelKind.IMAGE_PROMPT_ADAPTER)
    shown = ReadImagePrompt(model=adapter, encoder=ENCODER, images=(blob("seen"), blob("seen")), region=blob("where"))
    read = RequestFiles(
        picture=blob("start"),
        controls=[ReadControl(model=NET, image=blob("edges"), region=blob("part"))],
        image_prompts=[shown],
        regions=(blob("masked"), None),
    )
    assert resolve(generation, BASE, read).input_blobs == ("start", "edges", "part", "seen", "where", "masked")
    assert resolve(asked(), BASE).input_blobs == ()


@pytest.mark.parametrize(("token", "weight", "told"), [("", None, ("owl", 1.0)), ("cat", 0.0, ("cat", 0.0))])
def test_a_learned_word_is_the_files_own_unless_the_request_says_another(
    token: str, weight: float | None, told: tuple[str, float]
) -> None:
    word = TextualInversion(model_id="named", token=token, weight=weight)
    model, _, _ = NAMED["textual inversion"]
    found = resolve(asked(textual_inversions=(word,)), BASE, RequestFiles(words=[model])).textual_inversions[0]
    assert (found.token, found.weight, found.model_sha256) == (*told, "1" * 64)


@pytest.mark.parametrize(
    ("said", "told"),
    [({}, (0.8, 6.0, 2.5)), ({"start_ratio": 0.0, "aesthetic_score": 0.0, "negative_aesthetic_score": 0.0}, (0, 0, 0))],
)
def test_a_refiner_takes_over_late_unless_the_request_says_when(said: dict[str, Any], told: tuple[float, ...]) -> None:
    model, _, _ = NAMED["refiner"]
    found = resolve(asked(refiner=RefinerPass(model_id="named", **said)), SDXL, RequestFiles(refiner=model)).refiner
    assert found is not None
    assert (found.start_ratio, found.aesthetic_score, found.negative_aesthetic_score) == told
    assert (found.model_id, found.model_sha256, found.family) == ("named", "1" * 64, "sdxl_refiner")


@pytest.mark.parametrize(
    ("encoder", "says"),
    [
        (None, "needs an image encoder"),
        (Need(width=1280, patches=True), "hidden states of 1280"),
        (Need(width=1024, patches=False), "embeddings of 1024"),
    ],
)
def test_an_ip_adapter_without_its_encoder_says_which_it_needs(encoder: Need | None, says: str) -> None:
    generation, read = shown(entry(ModelKind.IMAGE_PROMPT_ADAPTER), encoder)
    with pytest.raises(FailedPrecondition, match=says) as refused:
        resolve(generation, BASE, read)
    assert refused.value.reason is ErrorReason.COMPONENT_MISSING
    assert refused.value.facts["field"] == "generation.image_prompts[0].model_id"


@pytest.mark.parametrize(
    ("given", "says"),
    [
        (Preprocessing(kind="depth"), "depth needs a model"),
        (Preprocessing(kind="canny", model_id="edges"), "canny needs no model"),
    ],
)
def test_a_map_that_no_model_here_makes_is_refused(given: Preprocessing, says: str) -> None:
    generation, read = guided(NET, preprocessing=given)
    with pytest.raises(FailedPrecondition, match=says) as refused:
        resolve(generation, BASE, read)
    assert refused.value.reason is ErrorReason.COMPONENT_MISSING
    assert refused.value.facts["field"] == "generation.controls[0].preprocessing"


@pytest.mark.parametrize(
    ("given", "options"),
    [
        (Preprocessing(kind="canny"), {"low_threshold": 100, "high_threshold": 200}),
        (
            Preprocessing(kind="canny", options=(("high_threshold", 150.0),)),
            {"low_threshold": 100, "high_threshold": 150},
        ),
        (Preprocessing(kind="shuffle"), {"seed": 5}),
        (Preprocessing(kind="shuffle", options=(("seed", 3.0),)), {"seed": 3}),
        (Preprocessing(kind="line_art"), {}),
    ],
)
def test_the_options_of_a_map_are_all_kept_with_the_job(given: Preprocessing, options: dict[str, float]) -> None:
    generation, read = guided(NET, preprocessing=given)
    generation = replace(generation, sampling=Sampling(steps=4, seed=2**32 + 5))
    kept = resolve(generation, BASE, read).controls[0].preprocessing
    assert kept is not None
    assert (kept.kind, dict(kept.options)) == (given.kind, options)


@pytest.mark.parametrize(
    ("seeds", "options", "fits"),
    [((1,), (), True), ((1, 2), (), False), ((1, 2), (("seed", 3.0),), True)],
)
def test_a_shuffled_map_has_one_seed_for_all_pictures(
    seeds: tuple[int, ...], options: tuple[tuple[str, float], ...], fits: bool
) -> None:
    generation, read = guided(NET, preprocessing=Preprocessing(kind="shuffle", options=options))
    several = replace(generation, sampling=Sampling(steps=4, seeds=seeds))
    if fits:
        assert isinstance(resolve(several, BASE, read), ResolvedGeneration)
        return
    with pytest.raises(InvalidRequest) as refused:
        resolve(several, BASE, read)
    assert [one.field for one in refused.value.violations] == ["generation.controls[0].preprocessing.shuffle.seed"]


@pytest.mark.parametrize(
    ("changes", "error", "reason", "says"),
    [
        ({"kind": ModelKind.VAE}, FailedPrecondition, ErrorReason.MODEL_INCOMPATIBLE, "is a vae"),
        (
            {"state": ModelState.CORRUPT, "problem": "it is cut off"},
            DataLoss,
            ErrorReason.MODEL_CORRUPT,
            "damaged: it is cut off",
        ),
        ({"state": ModelState.MISSING}, FailedPrecondition, ErrorReason.COMPONENT_MISSING, "are gone"),
        (
            {"state": ModelState.INCOMPATIBLE, "problem": "of no known family"},
            FailedPrecondition,
            ErrorReason.MODEL_INCOMPATIBLE,
            "cannot be used: of no known family",
        ),
    ],
)
def test_a_model_that_makes_no_pictures_is_refused(
    changes: dict[str, Any], error: type[FailedPrecondition | DataLoss], reason: ErrorReason, says: str
) -> None:
    with pytest.raises(error, match=says) as refused:
        resolve(asked(), replace(BASE, **changes))
    assert (refused.value.reason, refused.value.facts["model_id"]) == (reason, "emoji-sd")


@pytest.mark.parametrize("field", ["prompt", "negative_prompt"])
def test_a_prompt_of_the_second_pass_that_cannot_be_read_is_refused_by_its_field(field: str) -> None:
    edits: dict[str, Any] = {field: "[a|b]" * (limits.PROMPT_EDITS + 1)}
    generation = asked(prompt_syntax=Syntax.A1111, hires_pass=HiresPass(**edits))
    with pytest.raises(InvalidRequest) as refused:
        resolve(generation, BASE)
    assert [one.field for one in refused.value.violations] == [f"generation.hires_pass.{field}"]


def test_a_benchmark_makes_each_size_with_each_number_and_refuses_by_its_own_fields() -> None:
    sizes = ModelBenchmark(model_id="emoji-sd", sizes=((64, 64), (64, 72)), batch_sizes=(1, 2), steps=4)
    made = [(one.width_px, one.height_px, len(one.seeds)) for one in benchmark_cases(sizes, BASE)]
    assert made == [(64, 64, 1), (64, 64, 2), (64, 72, 1), (64, 72, 2)]
    for changes, field in (({"sizes": ((64, 65),)}, "sizes"), ({"batch_sizes": (17,)}, "batch_sizes")):
        with pytest.raises(InvalidRequest) as refused:
            list(benchmark_cases(replace(sizes, **changes), BASE))
        assert {one.field for one in refused.value.violations} == {f"model_benchmark.{field}"}
