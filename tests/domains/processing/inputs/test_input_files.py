"""Files that a job reads: decoded, brought to their sizes, named by their fields, and kept until the job has ended."""

from collections.abc import AsyncIterator, Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import safetensors.numpy
from msgspec.structs import replace

from domains.errors import InvalidRequest, NotFound
from domains.imaging import encode, fitted
from domains.inference.controls import Control, PictureSource, Preprocessing, ResolvedControl, UsedPicture
from domains.inference.generation import Generation, ResolvedGeneration
from domains.inference.hires import ResolvedHires
from domains.inference.image_fit import ImageFit
from domains.inference.image_prompts import ImagePrompt, ResolvedImagePrompt
from domains.inference.init_image import ResolvedInitImage
from domains.inference.kept_file import KeptFile
from domains.inference.latents import InitLatents, ResolvedLatents
from domains.inference.masks import MaskBlend, MaskFill, ResolvedMask
from domains.inference.references import Reference, ResolvedReference
from domains.inference.regions import Rectangle, Region, ResolvedRegion
from domains.inference.resampling import Resampling
from domains.memory.blobs.store import BlobStore
from domains.processing.inputs.control_pictures import ControlPictures
from domains.processing.inputs.image_prompt_pictures import ImagePromptPictures
from domains.processing.inputs.input_pictures import InputPictures
from domains.processing.inputs.latent_files import LatentFiles
from domains.processing.inputs.picture_reader import PictureReader
from domains.processing.inputs.reference_pictures import ReferencePictures
from domains.processing.inputs.region_pictures import RegionPictures
from domains.processing.jobs.job import JobOptions
from domains.processing.jobs.jobs import Jobs
from domains.processing.jobs.kinds import GenerateWork
from domains.processing.jobs.state import JobState
from tests.domains.inference.on_device.requests import embedded_model, request
from tests.domains.memory.blobs import opened, sha, uploaded

WIDTH, HEIGHT = 64, 128
GREY = np.full((HEIGHT, WIDTH), 200, np.uint8)
HALF = np.concatenate([np.full((HEIGHT, WIDTH // 2), level, np.uint8) for level in (0, 255)], axis=1)
COLOUR = np.dstack([np.full((96, 160), level, np.uint8) for level in (250, 100, 10)])
CANNY = (("low_threshold", 100.0), ("high_threshold", 200.0))


class Desk:
    """A store with pictures, and a decoder."""

    def __init__(self, blobs: BlobStore) -> None:
        self.blobs = blobs
        self.reader = PictureReader(blobs)
        jobs: Any = SimpleNamespace(listeners=[])
        self.changed: list[Callable[[object], None]] = jobs.listeners
        self.pictures = InputPictures(jobs, blobs, self.reader)

    async def stored(self, pixels: Any) -> str:
        return (await uploaded(self.blobs, encode(pixels, "image/png"))).id

    def held(self, name: str) -> bool:
        return self.blobs.is_held(name, "job-1")


@pytest.fixture
async def desk(tmp_path: Path) -> AsyncIterator[Desk]:
    with opened(tmp_path) as blobs:
        found = Desk(blobs)
        yield found
        await found.reader.close()


def resolved(**changes: Any) -> ResolvedGeneration:
    return request(embedded_model(), width_px=WIDTH, height_px=HEIGHT, **changes)


def job_of(generation: ResolvedGeneration) -> Any:
    work = GenerateWork(asked=Generation(prompt="p"), resolved=generation)
    return replace(Jobs.draft(work, JobOptions()), id="job-1")


def used(name: str) -> UsedPicture:
    return UsedPicture(blob_id=name, sha256="0" * 64)


def masked(name: str) -> ResolvedMask:
    blend, fill = next(iter(MaskBlend)), next(iter(MaskFill))
    return ResolvedMask(blob_id=name, sha256="", blur_px=0, dilation_px=0, invert=False, blend=blend, fill=fill)


def read(kept: KeptFile | None) -> bytes:
    assert kept is not None
    data = Path(kept.path).read_bytes()
    assert sha(data) == kept.sha256
    return data


async def test_a_picture_is_looked_at_in_a_blob_or_in_the_request(desk: Desk) -> None:
    name, file = await desk.stored(COLOUR), encode(COLOUR, "image/png")
    for source, blob_id in ((PictureSource(blob_id=name), name), (PictureSource(data=file), f"b-{sha(file)}")):
        found = await desk.pictures.look(source)
        assert (found.width_px, found.height_px, found.sha256) == (160, 96, sha(file))
        assert found.blob_id == blob_id or source.data
        assert (await desk.pictures.pixels_of(source, "f")).shape == (96, 160, 3)
    text = await uploaded(desk.blobs, b"no picture")
    with pytest.raises(InvalidRequest) as refused:
        await desk.pictures.look(PictureSource(blob_id=text.id), "generation.controls[1].image")
    assert [one.field for one in refused.value.violations] == ["generation.controls[1].image"]


async def test_a_blob_is_kept_until_its_job_ends_and_a_file_of_the_request_until_the_job_is_deleted(desk: Desk) -> None:
    name, file = await desk.stored(COLOUR), encode(COLOUR, "image/png")
    picture = await desk.pictures.look(PictureSource(blob_id=name))
    await desk.pictures.own(PictureSource(blob_id=name), picture, "job-1")
    await desk.pictures.own(PictureSource(data=file), picture, "job-1")
    made = [blob for blob in desk.blobs.all() if blob.id != name]
    assert [(blob.media_type, blob.sha256) for blob in made] == [("image/png", sha(file))]
    assert desk.held(name)
    init = ResolvedInitImage(blob_id=name, sha256=sha(file), strength=0.5, fit=ImageFit.STRETCH)
    job = job_of(resolved(init_image=init))
    for state, held in ((JobState.RUNNING, True), (JobState.SUCCEEDED, False)):
        for listener in desk.changed:
            listener(replace(job, state=state))
        assert desk.held(name) is held
    assert len(desk.blobs.all()) == 2
    desk.pictures.disown("job-1")
    assert [blob.id for blob in desk.blobs.all()] == [name]


async def test_the_worker_reads_picture_and_mask_in_the_size_of_the_result_while_it_works(desk: Desk) -> None:
    start, mask = await desk.stored(COLOUR), await desk.stored(HALF)
    generation = resolved(
        init_image=ResolvedInitImage(blob_id=start, sha256="", strength=0.5, fit=ImageFit.STRETCH),
        mask=masked(mask),
    )
    async with desk.pictures.pixels(job_of(generation), generation) as files:
        assert read(files.picture) == bytes((250, 100, 10)) * (WIDTH * HEIGHT)
        assert read(files.mask) == HALF.tobytes()
        assert len(desk.blobs.all()) == 4
    assert {blob.id for blob in desk.blobs.all()} == {start, mask}
    async with desk.pictures.pixels(job_of(resolved()), resolved()) as files:
        assert (files.picture, files.mask) == (None, None)


async def test_controls_are_maps_in_the_size_of_the_result_with_regions_and_hidden_parts(desk: Desk) -> None:
    picture, mask = await desk.stored(COLOUR), await desk.stored(HALF)
    plain = ResolvedControl(model_id="net", model_sha256="", image=used(picture), fit=ImageFit.STRETCH)
    generation = resolved(
        controls=(
            replace(plain, region=used(mask)),
            replace(plain, preprocessing=Preprocessing(kind="inpaint")),
            replace(plain, preprocessing=Preprocessing(kind="canny", options=CANNY)),
        ),
        init_image=ResolvedInitImage(blob_id=picture, sha256="", strength=0.5, fit=ImageFit.STRETCH),
        mask=masked(mask),
    )
    async with ControlPictures(desk.pictures).maps(job_of(generation), generation) as files:
        first, hidden, edges = files
        assert read(first.map) == bytes((250, 100, 10)) * (WIDTH * HEIGHT)
        assert read(first.region) == HALF.tobytes()
        assert (first.hidden, hidden.region) == (None, None)
        assert read(hidden.hidden) == HALF.tobytes()
        assert read(edges.map) == bytes(WIDTH * HEIGHT * 3)
    assert {blob.id for blob in desk.blobs.all()} == {picture, mask}


async def test_a_map_of_the_second_pass_lies_as_the_first_one_enlarged(desk: Desk) -> None:
    bars = np.zeros((HEIGHT, 4 * WIDTH, 3), np.uint8)
    # The middle half is what a picture of the first pass's shape shows of it.
    bars[:, WIDTH : 3 * WIDTH // 2], bars[:, 5 * WIDTH // 2 :] = 255, 90
    picture = await desk.stored(bars)
    plain = ResolvedControl(model_id="net", model_sha256="", image=used(picture), fit=ImageFit.COVER)
    again = ResolvedHires(
        width_px=3 * WIDTH,
        height_px=2 * HEIGHT,
        filter=Resampling.BICUBIC,
        of_pixels=False,
        strength=0.5,
        steps=2,
        sampler="euler",
        sigma_schedule="normal",
        guidance_scale=1.0,
        eta=None,
    )
    generation = resolved(controls=(plain, replace(plain, region=used(picture))), hires_pass=again)
    async with ControlPictures(desk.pictures).maps(job_of(generation), generation) as files:
        first, regional = files
        assert first.enlarged is not None
        assert regional.enlarged is not None
        narrow = np.frombuffer(read(first.map), np.uint8).reshape(HEIGHT, WIDTH, 3)
        wide = np.frombuffer(read(first.enlarged.map), np.uint8).reshape(2 * HEIGHT, 3 * WIDTH, 3)
        assert (first.enlarged.region, first.enlarged.hidden, first.enlarged.enlarged) == (None, None, None)
        assert len(read(regional.enlarged.region)) == 6 * WIDTH * HEIGHT
    # Wider than the first pass: stretched with it, not cut again.
    assert np.abs(fitted(narrow, 3 * WIDTH, 2 * HEIGHT, "stretch").astype(int) - wide).mean() < 12
    assert np.abs(fitted(bars, 3 * WIDTH, 2 * HEIGHT, "cover").astype(int) - wide).mean() > 24
    assert {blob.id for blob in desk.blobs.all()} == {picture}


async def test_image_prompts_are_squares_and_their_regions_have_the_size_of_the_result(desk: Desk) -> None:
    picture, mask = await desk.stored(COLOUR), await desk.stored(HALF)
    prompt = ResolvedImagePrompt(
        model_id="adapter",
        model_sha256="",
        encoder_model_id="e",
        encoder_sha256="",
        edge_px=32,
        images=(used(picture), used(picture)),
        region=used(mask),
        negative_image=used(picture),
    )
    generation = resolved(image_prompts=(prompt, replace(prompt, region=None, negative_image=None)))
    async with ImagePromptPictures(desk.pictures).files(job_of(generation), generation) as (full, bare):
        assert [len(read(one)) for one in full.images] == [32 * 32 * 3] * 2
        assert read(full.region) == HALF.tobytes()
        assert len(read(full.negative_image)) == 32 * 32 * 3
        assert (len(bare.images), bare.region, bare.negative_image) == (2, None, None)


async def test_pictures_for_a_siglip_are_squeezed_and_those_for_a_clip_are_cut(desk: Desk) -> None:
    white_right = np.zeros((32, 96, 3), np.uint8)
    white_right[:, 64:] = 255
    picture = await desk.stored(white_right)
    cut = ResolvedImagePrompt(
        model_id="adapter",
        model_sha256="",
        encoder_model_id="e",
        encoder_sha256="",
        edge_px=32,
        images=(used(picture),),
    )
    generation = resolved(image_prompts=(cut, replace(cut, cut=False)))
    async with ImagePromptPictures(desk.pictures).files(job_of(generation), generation) as both:
        seen = [np.frombuffer(read(one.images[0]), np.uint8).reshape(32, 32, 3) for one in both]
    assert [one.mean() > 0 for one in seen] == [False, True]
    assert seen[1][:, 24:].min() > 250


async def test_beside_a_zoom_regions_are_cut_as_the_picture_is(desk: Desk) -> None:
    half = np.zeros((128, 128), np.uint8)
    half[:, 64:] = 255
    levels = np.zeros((128, 128), np.uint8)
    levels[40:72, 48:80] = 255
    picture, mask, region = await desk.stored(COLOUR), await desk.stored(levels), await desk.stored(half)
    start = ResolvedInitImage(blob_id=picture, sha256="", strength=0.5, fit=None, own_size_px=(128, 128))
    right = Rectangle(left_px=64, top_px=0, width_px=64, height_px=128)
    shown = ResolvedImagePrompt(
        model_id="adapter",
        model_sha256="",
        encoder_model_id="e",
        encoder_sha256="",
        edge_px=32,
        images=(used(picture),),
        region=used(region),
    )
    generation = resolved(
        init_image=start,
        mask=replace(masked(mask), zoom_padding_px=0),
        regions=(ResolvedRegion(rectangle=right), ResolvedRegion(mask=used(region))),
        image_prompts=(shown,),
    )
    job = job_of(generation)
    async with RegionPictures(desk.pictures).files(job, generation) as files:
        cut = [np.frombuffer(read(one), np.uint8).reshape(HEIGHT, WIDTH) for one in files]
    async with ImagePromptPictures(desk.pictures).files(job, generation) as (one,):
        cut.append(np.frombuffer(read(one.region), np.uint8).reshape(HEIGHT, WIDTH))
    # The part that is made has the mask in its middle, and the border of the regions is that of the mask's middle.
    for found in cut:
        assert np.array_equal(found, cut[0])
        assert found[:, : WIDTH // 2 - 4].max() < 8
        assert found[:, WIDTH // 2 + 4 :].min() > 247


async def test_regions_and_references_have_their_own_sizes(desk: Desk) -> None:
    picture, mask = await desk.stored(COLOUR), await desk.stored(HALF)
    box = Rectangle(left_px=0, top_px=0, width_px=8, height_px=8)
    see = ResolvedReference(image=used(picture), fit=ImageFit.STRETCH, width_px=24, height_px=16)
    generation = resolved(regions=(ResolvedRegion(rectangle=box), ResolvedRegion(mask=used(mask))), references=(see,))
    async with RegionPictures(desk.pictures).files(job_of(generation), generation) as (none, kept):
        assert none is None
        assert read(kept) == HALF.tobytes()
    async with ReferencePictures(desk.pictures).pixels(job_of(generation), generation) as (one,):
        assert read(one) == bytes((250, 100, 10)) * (24 * 16)


async def test_all_pictures_of_a_request_are_looked_at_and_kept_by_their_fields(desk: Desk) -> None:
    names = [await desk.stored(np.full((8, 8), level, np.uint8)) for level in range(7)]
    given = [PictureSource(blob_id=name) for name in names]
    asked = Generation(
        prompt="p",
        controls=(Control(model_id="n", image=given[0], region=given[1]),),
        image_prompts=(ImagePrompt(model_id="a", images=(given[2],), region=given[3], negative_image=given[4]),),
        regions=(Region(mask=given[5]), Region()),
        references=(Reference(image=given[6]),),
    )
    looked = [await desk.pictures.look(one) for one in given]
    control: Any = SimpleNamespace(image=looked[0], region=looked[1])
    prompt: Any = SimpleNamespace(images=(looked[2],), region=looked[3], negative_image=looked[4])
    await ControlPictures(desk.pictures).own(asked, [control], "job-1")
    await ImagePromptPictures(desk.pictures).own(asked, [prompt], "job-1")
    masks = await RegionPictures(desk.pictures).looked(asked)
    assert [one and one.blob_id for one in masks] == [names[5], None]
    await RegionPictures(desk.pictures).own(asked, masks, "job-1")
    await ReferencePictures(desk.pictures).own(asked, await ReferencePictures(desk.pictures).look(asked), "job-1")
    assert [desk.held(name) for name in names] == [True] * 7
    text = PictureSource(blob_id=(await uploaded(desk.blobs, b"no picture")).id)
    regional = Generation(prompt="p", regions=(Region(), Region(mask=text)))
    seen = Generation(prompt="p", references=(Reference(image=text),))
    for look, field in (
        (RegionPictures(desk.pictures).looked(regional), "regions[1].mask"),
        (ReferencePictures(desk.pictures).look(seen), "reference_images[0].image"),
    ):
        with pytest.raises(InvalidRequest) as refused:
            await look
        assert [one.field for one in refused.value.violations] == [f"generation.{field}"]


@pytest.mark.parametrize("dtype", [np.float32, np.float16])
async def test_latents_are_read_by_their_header_and_handed_to_the_worker(desk: Desk, dtype: Any) -> None:
    file = safetensors.numpy.save({"latents": np.zeros((2, 4, 16, 8), dtype)})
    name = (await uploaded(desk.blobs, file)).id
    latents = LatentFiles(desk.pictures)
    found = await latents.look(InitLatents(blob_id=name))
    assert (found.blob_id, found.sha256, found.shape) == (name, sha(file), (2, 4, 16, 8))
    latents.own(InitLatents(blob_id=name), "job-1")
    assert desk.held(name)
    generation = resolved(init_latents=ResolvedLatents(blob_id=name, sha256=sha(file), strength=1.0))
    async with latents.file(job_of(generation), generation) as kept:
        assert read(kept) == file
    async with latents.file(job_of(resolved()), resolved()) as none:
        assert none is None
    with pytest.raises(NotFound):
        latents.own(InitLatents(blob_id="b-none"), "job-1")


@pytest.mark.parametrize(
    ("file", "told"),
    [
        (b"no tensors at all", "is no safetensors file"),
        (safetensors.numpy.save({"other": np.zeros((1, 4, 8, 8), np.float32)}), "has no tensor `latents`"),
        (safetensors.numpy.save({"latents": np.zeros((4, 8, 8), np.float32)}), "of shape"),
        (safetensors.numpy.save({"latents": np.zeros((1, 1, 4, 8, 8), np.float32)}), "of shape"),
        (safetensors.numpy.save({"latents": np.zeros((1, 4, 8, 8), np.float64)}), "F64"),
    ],
)
async def test_what_are_no_latents_is_refused_by_its_field(desk: Desk, file: bytes, told: str) -> None:
    name = (await uploaded(desk.blobs, file)).id
    with pytest.raises(InvalidRequest, match=told) as refused:
        await LatentFiles(desk.pictures).look(InitLatents(blob_id=name))
    assert [one.field for one in refused.value.violations] == ["generation.init_latents.blob_id"]
