"""The models that a generation names beside its own are hashed before they are judged: those alone that can be used."""

from types import SimpleNamespace
from typing import Any
from unittest.mock import Mock

import pytest
from msgspec.structs import replace

from domains.errors import ErrorReason, FailedPrecondition, InvalidRequest, NotFound, Violation
from domains.inference.checks.request import checked
from domains.inference.components import ComponentSource
from domains.inference.controls import Control, PictureSource
from domains.inference.details import DetailPass
from domains.inference.generation import Generation
from domains.inference.hires import HiresPass
from domains.inference.image_prompts import ImagePrompt
from domains.inference.loras import Lora
from domains.inference.refiner import RefinerPass
from domains.inference.regions import Rectangle, Region
from domains.inference.resolution.request_files import NOTHING_READ
from domains.inference.textual_inversions import TextualInversion
from domains.model.kind import ModelKind
from domains.model.model import Model, ModelState
from domains.processing.generation_resolver import GenerationResolver
from tests.domains.inference.on_device.requests import embedded_model

PICTURE = PictureSource(blob_id="b")
BOX = Rectangle(left_px=0, top_px=0, width_px=8, height_px=8)
LATER = (ModelKind.CHECKPOINT, ModelKind.REFINER)
READS: dict[str, tuple[dict[str, Any], tuple[ModelKind, ...], str]] = {
    "controls": (
        {"controls": (Control(model_id="x", image=PICTURE),)},
        (ModelKind.CONTROLNET, ModelKind.T2I_ADAPTER),
        "whole",
    ),
    "image_prompts": (
        {"image_prompts": (ImagePrompt(model_id="x", images=(PICTURE,)),)},
        (ModelKind.IMAGE_PROMPT_ADAPTER,),
        "whole",
    ),
    "detectors": ({"detail_passes": (DetailPass(detector_model_id="x"),)}, (ModelKind.DETECTOR,), "whole"),
    "upscaler": ({"hires_pass": HiresPass(upscaler_model_id="x")}, (ModelKind.UPSCALER,), "whole"),
    "hires": ({"hires_pass": HiresPass(model_id="x")}, LATER, "content"),
    "refiner": ({"refiner": RefinerPass(model_id="x")}, LATER, "content"),
}
"""By field of what was read: the request, the kinds that are hashed, and how."""
OTHERS = {ModelKind.VAE, ModelKind.LORA}


class Library:
    """A catalogue of one model `x` that says how it was hashed; its pictures are all the same."""

    def __init__(self, **changes: Any) -> None:
        self.model = replace(embedded_model(), id="x", sha256="", **changes)
        self.catalogue: Any = self
        nothing: Any = None
        pictures: Any = SimpleNamespace(look=self._look, looked=self._looked)
        inputs: Any = SimpleNamespace(
            pictures=pictures, controls=pictures, references=pictures, image_prompts=pictures, regions=pictures
        )
        self.resolver = GenerationResolver(self.catalogue, nothing, nothing, nothing, inputs)

    async def _look(self, *_: object) -> object:
        return "picture"

    async def _looked(self, asked: object) -> tuple[()]:
        return ()

    def get(self, model_id: str) -> Model:
        if model_id != "x":
            raise NotFound(model_id, ErrorReason.MODEL_NOT_FOUND)
        return self.model

    def list(self) -> list[Model]:
        return [replace(self.model, id=name) for name in ("z", "y", "x")]

    def hashed(self, model: Model) -> Model:
        return replace(model, sha256="file")

    def hashed_whole(self, model: Model) -> Model:
        return replace(model, sha256="whole")

    def content_hashed(self, model: Model) -> Model:
        return replace(model, sha256="content")

    async def read(self, **fields: Any) -> Any:
        return await self.resolver.read(checked(Generation(prompt="an owl", **fields)))


@pytest.fixture(autouse=True)
def no_encoder(monkeypatch: pytest.MonkeyPatch) -> None:
    """Which encoder fits is tested elsewhere."""
    monkeypatch.setattr("domains.processing.generation_resolver.encoder_for", lambda *_: "encoder")  # pyright: ignore[reportUnknownLambdaType]


@pytest.mark.parametrize("state", [ModelState.AVAILABLE, ModelState.CORRUPT])
@pytest.mark.parametrize("field", READS)
async def test_a_model_beside_the_own_is_hashed_where_it_can_be_used_and_else_judged_as_it_is(
    field: str, state: ModelState
) -> None:
    asked, kinds, how = READS[field]
    for kind in (*kinds, *OTHERS):
        found = getattr(await Library(kind=kind, state=state).read(**asked), field)
        one = found[0] if isinstance(found, list | tuple) else found
        model: Model = getattr(one, "model", one)
        assert model.kind is kind
        assert model.sha256 == (how if kind in kinds and state is ModelState.AVAILABLE else ""), kind


async def test_nothing_is_read_for_what_is_not_asked_for() -> None:
    found = await Library().read()
    assert (found.picture, found.mask, found.latents, found.refiner, found.hires, found.upscaler) == (None,) * 6
    assert [len(each) for each in (found.loras, found.words, found.controls, found.components, found.detectors)] == [
        0
    ] * 5
    assert (await Library().read(hires_pass=HiresPass())).hires is None


async def test_pictures_of_guides_are_told_apart() -> None:
    prompt = ImagePrompt(model_id="x", images=(PICTURE, PICTURE), region=PICTURE, negative_image=PICTURE)
    found = (await Library(kind=ModelKind.IMAGE_PROMPT_ADAPTER).read(image_prompts=(prompt,))).image_prompts[0]
    assert (found.images, found.region, found.negative_image) == (("picture", "picture"), "picture", "picture")
    assert found.encoder == "encoder"
    plain = (await Library().read(image_prompts=(ImagePrompt(model_id="x", images=(PICTURE,)),))).image_prompts[0]
    assert (plain.images, plain.region, plain.negative_image, plain.encoder) == (("picture",), None, None, None)
    asked = (Control(model_id="x", image=PICTURE), Control(model_id="x", image=PICTURE, region=PICTURE))
    assert [one.region for one in (await Library().read(controls=asked)).controls] == [None, "picture"]


@pytest.mark.parametrize("kind", [ModelKind.LORA, ModelKind.TEXTUAL_INVERSION, ModelKind.VAE])
async def test_adapters_are_hashed_and_other_models_are_not(kind: ModelKind) -> None:
    region = Region(rectangle=BOX, loras=(Lora(model_id="x"),))
    fields: dict[str, Any] = {"loras": (Lora(model_id="x"),), "textual_inversions": (TextualInversion(model_id="x"),)}
    found = await Library(kind=kind).read(**fields)
    told = "" if kind is ModelKind.VAE else "file"
    assert [one.sha256 for one in (*found.loras, *found.words)] == [told, told]
    read = await Library(kind=kind).read(regions=(region,))
    assert [[one.sha256 for one in each] for each in read.region_loras] == [[told]]


async def test_components_from_elsewhere_are_read_by_name_with_their_content_and_without_those_left_out() -> None:
    sources = (
        ComponentSource(component_id="vae", model_id="x"),
        ComponentSource(component_id="text_encoder", omitted=True),
        ComponentSource(component_id="unet"),
    )
    found = (await Library().read(components=sources)).components
    assert [(one.component_id, one.model_id, one.model_sha256) for one in found] == [
        ("text_encoder", "", ""),
        ("vae", "x", "content"),
    ]


async def test_the_detector_of_a_request_that_names_none_is_the_first_that_can_be_used() -> None:
    for kind, state in ((ModelKind.VAE, ModelState.AVAILABLE), (ModelKind.DETECTOR, ModelState.CORRUPT)):
        with pytest.raises(FailedPrecondition) as refused:
            await Library(kind=kind, state=state).read(detail_passes=(DetailPass(),))
        assert refused.value.reason is ErrorReason.COMPONENT_MISSING
    found = await Library(kind=ModelKind.DETECTOR).read(detail_passes=(DetailPass(),))
    assert [one.id for one in found.detectors] == ["x"]


async def test_nothing_is_read_for_a_request_that_is_wrong_by_itself() -> None:
    wrong = checked(Generation(prompt="an owl", width_px=1, loras=(Lora(model_id="absent"),)))
    refusal = wrong.wrong.error()
    assert isinstance(refusal, InvalidRequest)
    assert all(isinstance(one, Violation) for one in refusal.violations)
    assert await Library().resolver.read(wrong) is NOTHING_READ


async def test_a_loaded_model_that_is_named_says_the_components_where_it_was_assembled() -> None:
    library = Library()
    for model_id, told in (("x+text_encoder=+vae=x", [("text_encoder", ""), ("vae", "x")]), ("x", [])):
        loaded: Any = Mock()
        loaded.find.return_value.model_id = model_id
        library.resolver._loaded = loaded  # pyright: ignore[reportPrivateUsage]
        found = await library.read(loaded_model_id="x@gpu")
        assert [(one.component_id, one.model_id) for one in found.components] == told
        loaded.find.assert_called_with("x@gpu")
