"""Image to image through the server: whose the picture is, what it becomes, and what is refused by the name of its field."""

import io
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import ExifTags, Image

from deviceops.common.v1 import image_pb2
from deviceops.inference.v1 import conditioning_pb2, generation_pb2
from deviceops.memory.v1 import blob_pb2, memory_service_pb2
from deviceops.processing.v1 import job_pb2, processing_service_pb2
from domains.imaging import encode
from tests.server import asking
from tests.server.asking import picture
from tests.server.harness import RunningServer

FIELD = "generation.init_image.image"
ROWS, COLUMNS = np.indices((64, 80))
PIXELS = np.stack([ROWS * 4, COLUMNS * 3, (ROWS + COLUMNS) % 256], axis=-1).astype(np.uint8)
PNG = encode(PIXELS, "image/png")


def from_picture(data: bytes = PNG, blob_id: str = "", **changes: Any) -> generation_pb2.Generation:
    """A generation from a picture, of the size of the picture."""
    source = image_pb2.ImageInput(blob_id=blob_id) if blob_id else image_pb2.ImageInput(data=data)
    fit = changes.pop("fit", image_pb2.IMAGE_FIT_UNSPECIFIED)
    strength = changes.pop("strength", 0.5)
    generation = picture(**changes)
    generation.ClearField("width_px")
    generation.ClearField("height_px")
    generation.init_image.CopyFrom(conditioning_pb2.InitImage(image=source, strength=strength, fit=fit))
    return generation


def finished(server: RunningServer, generation: generation_pb2.Generation) -> Any:
    last = asking.watch(server, asking.submit(server, generation))[-1]
    assert asking.kind(last) == "succeeded", last
    return last.generation_result


def shown(server: RunningServer, image: Any) -> NDArray[np.uint8]:
    with Image.open(io.BytesIO(asking.blob(server, image.file.blob_id))) as opened:
        return np.asarray(opened)


def upload(server: RunningServer, data: bytes) -> str:
    spec = blob_pb2.BlobSpec(size_bytes=len(data))
    chunk = blob_pb2.BlobChunk(data=data)
    messages = [memory_service_pb2.UploadBlobRequest(blob_spec=spec), memory_service_pb2.UploadBlobRequest(chunk=chunk)]
    return server.memory.UploadBlob(iter(messages), timeout=asking.CALL_S).blob.id


def blob_exists(server: RunningServer, blob_id: str) -> bool:
    found = server.memory.ListBlobs(memory_service_pb2.ListBlobsRequest(page_size=1000), timeout=asking.CALL_S)
    return blob_id in {blob.id for blob in found.blobs}


def test_generate_starts_from_an_inline_picture_and_takes_its_size(server: RunningServer) -> None:
    updates = asking.journal_of(asking.generate(server, from_picture(steps=4, previews=1)))
    result = updates[-1].result
    assert result.resolved.task == "image_to_image"
    size = result.images[0].file.size
    assert (size.width_px, size.height_px) == (80, 64)
    stages = [one.event.stage_started.stage for one in updates if asking.kind(one) == "stage_started"]
    place = stages.index("encoding_input")
    assert (stages[place - 1], stages[place + 1]) == ("conditioning", "denoising")
    assert result.resolved.generation.sampling.steps == 4
    steps = [one.event.progress for one in updates if asking.kind(one) == "progress"]
    assert {one.total for one in steps if one.stage == "denoising"} <= {2}


def test_strength_0_gives_the_pixels_of_the_picture(server: RunningServer) -> None:
    result = finished(server, from_picture(strength=0.0, count=2))
    for image in result.images:
        np.testing.assert_array_equal(shown(server, image), PIXELS)


def test_more_strength_keeps_less_of_the_picture(server: RunningServer) -> None:
    apple = finished(server, picture(steps=8)).images[0].file.blob_id
    seen = shown(server, finished(server, from_picture(blob_id=apple, strength=0.0)).images[0]).astype(int)
    gaps: list[float] = []
    for strength in (0.1, 1.0):
        asked = from_picture(blob_id=apple, strength=strength, steps=10)
        asked.prompt = "a blue car"
        gaps.append(np.abs(shown(server, finished(server, asked).images[0]).astype(int) - seen).mean())
    assert 1.5 * gaps[0] < gaps[1]


def test_the_stored_request_names_a_blob_and_the_resolved_one_asks_for_the_same_file(server: RunningServer) -> None:
    job_id = asking.submit(server, from_picture(count=2))
    first = asking.watch(server, job_id)[-1].generation_result
    named = asking.job_of(server, job_id).spec.generation.init_image.image
    assert (named.data, asking.blob(server, named.blob_id)) == (b"", PNG)
    again = finished(server, first.resolved.generation)
    assert [one.file.sha256 for one in again.images] == [one.file.sha256 for one in first.images]
    assert again.resolved.generation.init_image == first.resolved.generation.init_image


def test_an_inline_picture_leaves_with_its_job(server: RunningServer) -> None:
    # Another picture than those of other tests: equal bytes are one blob.
    data = encode(255 - PIXELS, "image/png")
    job_id = asking.submit(server, from_picture(data, strength=0.0))
    asking.watch(server, job_id)
    blob_id = asking.job_of(server, job_id).spec.generation.init_image.image.blob_id
    assert asking.blob(server, blob_id) == data
    asking.delete(server, job_id)
    assert not blob_exists(server, blob_id)


def test_an_uploaded_picture_is_in_use_until_its_job_ends_and_stays(server: RunningServer) -> None:
    blob_id = upload(server, PNG)
    delete = memory_service_pb2.DeleteBlobRequest(blob_id=blob_id, only_if_unused=True)
    with asking.occupied(server):
        job_id = asking.submit(server, from_picture(blob_id=blob_id))
        refusal = asking.refused(lambda: server.memory.DeleteBlob(delete, timeout=asking.CALL_S))
        assert refusal.reason == "BLOB_IN_USE"
        asking.cancel(server, job_id)
    assert asking.blob(server, blob_id) == PNG
    server.memory.DeleteBlob(delete, timeout=asking.CALL_S)
    assert not blob_exists(server, blob_id)


def saved(image: Image.Image, ending: str, **options: object) -> bytes:
    file = io.BytesIO()
    image.save(file, ending, **options)
    return file.getvalue()


def turned() -> bytes:
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    return saved(Image.fromarray(np.ascontiguousarray(np.rot90(PIXELS))), "PNG", exif=exif)


def transparent() -> bytes:
    image = Image.fromarray(np.zeros((64, 80), np.uint8), "P")
    image.putpalette([0, 0, 0])
    return saved(image, "PNG", transparency=0)


KINDS: dict[str, tuple[Callable[[], bytes], NDArray[np.uint8]]] = {
    "a turned one": (turned, PIXELS),
    "a palette with transparency": (transparent, np.full((64, 80, 3), 255, np.uint8)),
    "CMYK": (lambda: saved(Image.new("CMYK", (80, 64)), "JPEG"), np.full((64, 80, 3), 255, np.uint8)),
    "an animation": (
        lambda: saved(
            Image.fromarray(PIXELS), "WEBP", lossless=True, save_all=True, append_images=[Image.new("RGB", (80, 64))]
        ),
        PIXELS,
    ),
}


@pytest.mark.parametrize("kind", list(KINDS))
def test_each_kind_of_file_is_seen_as_a_viewer_shows_it(server: RunningServer, kind: str) -> None:
    make, expected = KINDS[kind]
    result = finished(server, from_picture(make(), strength=0.0))
    assert np.abs(shown(server, result.images[0]).astype(int) - expected).max() <= 1


@pytest.mark.parametrize(
    ("fit", "corner"),
    [(image_pb2.IMAGE_FIT_STRETCH, PIXELS[0, 0]), (image_pb2.IMAGE_FIT_COVER, None), (image_pb2.IMAGE_FIT_PAD, None)],
)
def test_a_picture_of_another_size_is_fitted_as_asked(
    server: RunningServer, fit: image_pb2.ImageFit.ValueType, corner: NDArray[np.uint8] | None
) -> None:
    generation = from_picture(strength=0.0, fit=fit)
    generation.width_px, generation.height_px = 64, 72
    found = shown(server, finished(server, generation).images[0])
    assert found.shape == (72, 64, 3)
    if corner is not None:
        assert np.abs(found[0, 0].astype(int) - corner).max() < 16


BAD: dict[str, tuple[generation_pb2.Generation, str, str]] = {
    "no picture": (from_picture(b"GIF89a" + bytes(64)), FIELD, "BAD_IMAGE"),
    "cut short": (from_picture(PNG[: len(PNG) // 2]), FIELD, "BAD_IMAGE"),
    "a bomb": (
        from_picture(PNG[:16] + (60_000).to_bytes(4, "big") * 2 + PNG[24:]),
        FIELD,
        "BAD_IMAGE",
    ),
    "nothing": (
        generation_pb2.Generation(prompt="x", init_image=conditioning_pb2.InitImage(strength=0.5)),
        FIELD,
        "INVALID_FIELD",
    ),
    "too much strength": (from_picture(strength=1.01), "generation.init_image.strength", "INVALID_FIELD"),
    "contained": (from_picture(fit=image_pb2.IMAGE_FIT_CONTAIN), "generation.init_image.fit", "INVALID_FIELD"),
    "too small": (from_picture(encode(PIXELS[:32], "image/png")), FIELD, "UNSUPPORTED_COMBINATION"),
}


@pytest.mark.parametrize("case", list(BAD))
def test_what_cannot_be_started_from_is_refused_by_its_field(server: RunningServer, case: str) -> None:
    generation, field, reason = BAD[case]
    refusal = asking.refused(lambda: asking.generate(server, generation))
    assert (refusal.fields, refusal.reason) == ([field], reason)
    spec = job_pb2.JobSpec(generation=generation)
    request = processing_service_pb2.SubmitJobRequest(spec=spec, validate_only=True)
    (finding,) = server.processing.SubmitJob(request, timeout=asking.CALL_S).findings
    assert finding.field == f"spec.{field}"


def test_another_size_without_a_fit_is_refused(server: RunningServer) -> None:
    generation = from_picture()
    generation.width_px = generation.height_px = 64
    refusal = asking.refused(lambda: asking.generate(server, generation))
    assert (refusal.fields, refusal.reason) == ([FIELD], "INVALID_FIELD")
    assert "80×64" in refusal.message


def test_a_blob_that_does_not_exist_is_refused(server: RunningServer) -> None:
    refusal = asking.refused(lambda: asking.generate(server, from_picture(blob_id="b-none")))
    assert (refusal.reason, refusal.facts["blob_id"]) == ("BLOB_NOT_FOUND", "b-none")


def test_a_repeated_request_follows_its_job_and_keeps_one_picture(server: RunningServer) -> None:
    data = encode(PIXELS // 2, "image/png")
    first, second = (asking.submit(server, from_picture(data, strength=0.0), request_id="a-picture") for _ in "12")
    assert first == second
    asking.watch(server, first)
    blob_id = asking.job_of(server, first).spec.generation.init_image.image.blob_id
    asking.delete(server, first)
    assert not blob_exists(server, blob_id)
