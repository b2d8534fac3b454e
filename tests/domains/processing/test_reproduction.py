"""What cannot be made again is refused before a job is stored, and leaves no file held."""

from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from msgspec.structs import replace

from domains.errors import DeviceOpsError, ErrorReason, InvalidRequest, NotFound
from domains.inference.checks.request import checked
from domains.inference.generation import Generation, Sampling
from domains.inference.hires import HiresPass
from domains.inference.image_fit import ImageFit
from domains.inference.init_image import ResolvedInitImage
from domains.inference.manifest import manifest_of
from domains.inference.recipes import FIELD, NamedModel, Recipe, Verdict, versions_of
from domains.inference.resampling import Resampling
from domains.inference.textual_inversions import ResolvedTextualInversion
from domains.memory.blobs.store import BlobStore
from domains.model.kind import ModelKind
from domains.model.model import ModelState
from domains.processing.attempts.reproductions import SentPicture, causes_of
from domains.processing.jobs.kinds import ReproduceWork
from domains.processing.reproduction import DEFAULT_TOLERANCE, Reproducing, Reproduction, changed_inputs, fitted
from domains.requests import Asked
from tests.domains.inference.on_device.requests import embedded_model, request
from tests.domains.processing.test_submit import DEMO, PLAIN, Desk

RECIPE = Recipe(source="a1111", generation=Generation(prompt="an owl"), model=NamedModel(name=DEMO.upper()))


class Pictures:
    """Says of each picture that a recipe is in it."""

    def __init__(self, blobs: BlobStore) -> None:
        self.blobs = blobs
        self.recipe = RECIPE
        self.owned: list[str] = []
        self.refusal: DeviceOpsError | None = None

    async def look(self, data: bytes, name: str) -> SentPicture:
        return SentPicture(
            blob_id=name, media_type="image/png", width_px=128, height_px=128, data=data, recipe=self.recipe
        )

    async def own(self, picture: SentPicture, inputs: object, job_id: str) -> None:
        if picture.data:
            await self.blobs.keep(picture.data, picture.media_type, job_id)
        if self.refusal is not None:
            raise self.refusal
        self.owned.append(job_id)


class Reproducer:
    """A desk that takes pictures."""

    def __init__(self, desk: Desk) -> None:
        self.desk = desk
        self.pictures: Any = Pictures(desk.blobs)
        again: Any = None
        self.reproducing = Reproducing(desk.submissions, desk.catalogue, self.pictures, again)

    async def submit(self, data: bytes = b"png", **given: Any) -> ReproduceWork:
        job = await self.reproducing.submit(Reproduction(data=data, **given), PLAIN)
        assert isinstance(job.work, ReproduceWork)
        assert self.desk.jobs.get(job.id) == job
        return job.work


@pytest.fixture
def reproducer(tmp_path: Path) -> Iterator[Reproducer]:
    desk = Desk(tmp_path)
    yield Reproducer(desk)
    desk.database.close()


async def _refused(reproducer: Reproducer, **given: Any) -> InvalidRequest:
    with pytest.raises(InvalidRequest) as refused:
        await reproducer.submit(**given)
    assert reproducer.desk.jobs.unfinished() == []
    return refused.value


@pytest.mark.parametrize("sent", [{"data": b"png"}, {"data": b"", "blob_id": "b"}, {"data": b"png", "blob_id": "b"}])
async def test_a_picture_or_a_blob_is_taken_and_owned(reproducer: Reproducer, sent: dict[str, Any]) -> None:
    work = await reproducer.submit(**sent)
    assert (work.resolved.model_id, work.tolerance) == (DEMO, DEFAULT_TOLERANCE)
    assert len(reproducer.pictures.owned) == 1


async def test_a_request_without_a_picture_is_refused(reproducer: Reproducer) -> None:
    refused = await _refused(reproducer, data=b"")
    assert [each.field for each in refused.violations] == [FIELD]


@pytest.mark.parametrize("tolerance", [0, 255])
async def test_the_ends_of_the_tolerance_are_taken(reproducer: Reproducer, tolerance: int) -> None:
    assert (await reproducer.submit(tolerance=tolerance)).tolerance == tolerance


@pytest.mark.parametrize("tolerance", [-1, 256])
async def test_a_tolerance_that_no_colour_has_is_refused(reproducer: Reproducer, tolerance: int) -> None:
    refused = await _refused(reproducer, tolerance=tolerance)
    assert [each.field for each in refused.violations] == ["reproduction.tolerance"]


async def test_a_model_that_is_not_here_is_named_and_another_can_be_chosen(reproducer: Reproducer) -> None:
    reproducer.pictures.recipe = replace(RECIPE, model=NamedModel(name="elsewhere"))
    with pytest.raises(NotFound, match="'elsewhere', which is not here") as missing:
        await reproducer.submit()
    assert missing.value.reason is ErrorReason.MODEL_NOT_FOUND
    assert (await reproducer.submit(model_id=DEMO)).resolved.model_id == DEMO
    with pytest.raises(NotFound):
        await reproducer.submit(model_id="nor-this")
    reproducer.pictures.recipe = replace(RECIPE, model=NamedModel(name="x" * 300))
    with pytest.raises(NotFound) as long:
        await reproducer.submit()
    assert long.value.facts["model_id"] == "x" * 255 + "…"


async def test_what_the_file_says_and_cannot_be_made_is_a_fault_of_the_file(reproducer: Reproducer) -> None:
    generation = Generation(prompt="an owl", sampling=Sampling(steps=-1))
    assert checked(generation).wrong.error() is not None
    reproducer.pictures.recipe = replace(RECIPE, generation=generation)
    refused = await _refused(reproducer)
    assert refused.reason is ErrorReason.BAD_IMAGE
    assert [each.field for each in refused.violations] == [FIELD]
    assert "sampling.steps" in refused.message


async def test_a_picture_that_is_gone_meanwhile_stores_no_job_and_keeps_no_file(reproducer: Reproducer) -> None:
    reproducer.pictures.refusal = NotFound("it is gone", ErrorReason.BLOB_NOT_FOUND)
    with pytest.raises(NotFound):
        await reproducer.submit()
    assert reproducer.desk.jobs.unfinished() == []
    assert reproducer.desk.blobs.all() == []


async def test_a_repeated_request_keeps_the_file_for_the_first_job_alone(reproducer: Reproducer) -> None:
    asked = Asked(scope="SubmitJob", request_id="r", digest="d")
    first, again = [await reproducer.reproducing.submit(Reproduction(data=b"png"), PLAIN, asked) for _ in range(2)]
    assert first.id == again.id
    assert len(reproducer.pictures.owned) == 2
    reproducer.desk.blobs.release(first.id)
    assert reproducer.desk.blobs.all() == []


def test_what_differed_is_named_and_the_device_only_where_nothing_else_did() -> None:
    model = embedded_model()
    now = versions_of(manifest_of(request(model), 0))
    assert now
    work: Any = SimpleNamespace(resolved=request(model), versions=now, causes=())
    different: Any = SimpleNamespace(verdict=Verdict.DIFFERENT)
    same: Any = SimpleNamespace(verdict=next(one for one in Verdict if one is not Verdict.DIFFERENT))
    assert causes_of(work, same, "sim-0") == ()
    assert [(one.name, one.present) for one in causes_of(work, different, "sim-0")] == [("device_name", "sim-0")]
    work.versions = tuple((name, text if at else f"{text.split(' ')[0]} 0.0.1") for at, (name, text) in enumerate(now))
    (cause,) = causes_of(work, different, "sim-0")
    assert (cause.name, cause.original, cause.present) == (now[0][0], work.versions[0][1], now[0][1])
    work.versions = ()
    work.causes = (cause,)
    assert causes_of(work, different, "sim-0") == (cause,)


def test_every_input_that_is_another_is_named_with_its_hashes() -> None:
    model = embedded_model()
    now = request(model)
    init = ResolvedInitImage(blob_id="b", sha256="1" * 64, strength=0.5, fit=ImageFit.STRETCH)
    word = ResolvedTextualInversion(model_id="w", model_sha256="1" * 64, token="w", weight=1.0)
    now = replace(now, init_image=init, textual_inversions=(word,))
    other = "2" * 64
    cases: list[tuple[dict[str, Any], str]] = [
        ({}, ""),
        ({"model_sha256": other}, "model_sha256"),
        ({"init_image": replace(init, sha256=other)}, "image_sha256"),
        ({"init_image": None}, ""),
        ({"textual_inversions": (replace(word, model_sha256=other),)}, "textual_inversions.sha256"),
    ]
    for changes, name in cases:
        recipe = replace(RECIPE, original=replace(now, **changes))
        assert [one.name for one in changed_inputs(recipe, now)] == ([name] if name else [])
    for count, told in ((1, []), (2, [("image_count", "2", "1")])):
        recipe = replace(RECIPE, original=now, image_count=count)
        assert [(one.name, one.original, one.present) for one in changed_inputs(recipe, now)] == told
    for name, told in ((DEMO.upper(), []), ("elsewhere", [("model_id", "elsewhere", now.model_id)])):
        recipe = replace(RECIPE, model=NamedModel(name=name))
        found = [(one.name, one.original, one.present) for one in changed_inputs(recipe, now)]
        assert found == [*told, ("server_version", "a1111", "deviceops")]


@pytest.mark.parametrize(
    ("family", "source", "clip_skip"),
    [
        ("sd1", "a1111", 2),
        ("sdxl", "a1111", None),
        ("sdxl", "comfyui", 2),
        ("sdxl", "deviceops", 2),
        ("flux1", "a1111", None),
    ],
)
def test_the_layer_of_the_prompt_is_the_one_that_the_other_program_took(
    family: str, source: str, clip_skip: int | None
) -> None:
    recipe = replace(RECIPE, source=source, generation=Generation(prompt="an owl", clip_skip=2))
    picture: Any = SimpleNamespace(width_px=128, height_px=96, media_type="image/webp")
    asked = fitted(recipe, replace(embedded_model(), family=family), picture, ())
    assert asked.clip_skip == clip_skip
    assert (asked.width_px, asked.height_px, asked.output.media_type) == (128, 96, "image/webp")
    sized = replace(recipe, generation=replace(recipe.generation, width_px=64, height_px=64))
    assert fitted(sized, embedded_model(), picture, ()).width_px == 64


UPSCALER, HIRES = "anime-4x", HiresPass(scale=2.0, pixel_filter=Resampling.LANCZOS)


@pytest.mark.parametrize(
    ("state", "named", "taken"),
    [
        (ModelState.AVAILABLE, "Anime-4x", True),
        (ModelState.AVAILABLE, "The Anime Upscaler", True),
        (ModelState.AVAILABLE, "other.pth", False),
        (ModelState.CORRUPT, "Anime-4x", False),
    ],
)
def test_the_upscaler_that_a_text_names_is_taken_where_it_can_be_used(
    state: ModelState, named: str, taken: bool
) -> None:
    upscaler = replace(
        embedded_model(), id=UPSCALER, display_name="The Anime Upscaler", kind=ModelKind.UPSCALER, state=state
    )
    catalogue: Any = SimpleNamespace(list=lambda: [embedded_model(), upscaler])  # pyright: ignore[reportUnknownLambdaType]
    nothing: Any = None
    reproducing = Reproducing(nothing, catalogue, nothing, nothing)
    recipe = replace(RECIPE, upscaler=named, generation=replace(RECIPE.generation, hires_pass=HIRES))
    found, causes = reproducing._with_upscaler(recipe)  # pyright: ignore[reportPrivateUsage]
    hires = found.generation.hires_pass
    assert hires is not None
    if taken:
        assert (hires.upscaler_model_id, hires.pixel_filter, causes) == (UPSCALER, None, ())
    else:
        assert (found, [(one.name, one.original) for one in causes]) == (recipe, [("Hires upscaler", named)])
    for without in (replace(recipe, upscaler=""), replace(recipe, generation=RECIPE.generation)):
        assert reproducing._with_upscaler(without) == (without, ())  # pyright: ignore[reportPrivateUsage]
