"""The pictures of a job: seeds, formats, repeatability."""

import hashlib
import io
from typing import Any

import grpc
import numpy as np
import pyexiv2
import pytest
from numpy.typing import NDArray
from PIL import ExifTags, Image

from deviceops.common.v1 import image_pb2
from deviceops.inference.v1 import generated_image_pb2, generation_pb2, sampling_pb2
from deviceops.memory.v1 import memory_service_pb2
from domains import imaging
from domains.imaging import MEDIA_TYPES
from domains.inference import manifest
from tests.server import asking
from tests.server.asking import exact_picture, picture
from tests.server.harness import RunningServer

SIGNATURES = {
    "image/png": b"\x89PNG\r\n\x1a\n",
    "image/jpeg": b"\xff\xd8\xff",
    "image/webp": b"RIFF",
    "image/avif": b"ftypavif",
}


def result_of(server: RunningServer, **asked: int) -> generated_image_pb2.GenerationResult:
    return asking.watch(server, asking.submit(server, picture(**asked)))[-1].generation_result


def test_several_pictures_have_consecutive_seeds_and_equal_single_runs(server: RunningServer) -> None:
    together = result_of(server, seed=100, count=3, steps=3)
    assert [image.seed for image in together.images] == [100, 101, 102]
    assert list(together.resolved.generation.sampling.seeds) == [100, 101, 102]
    for image in together.images:
        (alone,) = result_of(server, seed=image.seed, steps=3).images
        # Pictures of one job share their forward passes; the batch may round the last bit of a float otherwise.
        assert np.abs(pixels(server, alone) - pixels(server, image)).max() <= 1
    assert len({image.file.sha256 for image in together.images}) == 3


def pixels(server: RunningServer, image: generated_image_pb2.GeneratedImage) -> NDArray[np.int16]:
    with Image.open(io.BytesIO(asking.blob(server, image.file.blob_id))) as opened:
        return np.asarray(opened).astype(np.int16)


def test_the_same_request_gives_the_same_file(server: RunningServer) -> None:
    asked = exact_picture(seed=9, steps=3)
    first, second = (
        asking.watch(server, asking.submit(server, asked))[-1].generation_result.images[0] for _ in range(2)
    )
    assert first.file.sha256 == second.file.sha256


def test_a_seed_that_was_not_given_is_drawn_and_told(server: RunningServer) -> None:
    asked = picture()
    asked.sampling.ClearField("seed")
    drawn = [asking.watch(server, asking.submit(server, asked))[-1].generation_result for _ in range(2)]
    assert drawn[0].images[0].seed != drawn[1].images[0].seed
    assert [list(result.resolved.generation.sampling.seeds) for result in drawn] == [[r.images[0].seed] for r in drawn]


def test_the_result_repeats_every_choice(server: RunningServer) -> None:
    asked = picture()
    asked.sampling.Clear()
    resolved = asking.watch(server, asking.submit(server, asked))[-1].generation_result.resolved
    assert resolved.generation.model_id == "emoji-sd"
    (base,) = resolved.used_models
    assert (base.role, base.model_id, base.family, len(base.sha256)) == ("base", "emoji-sd", "sd1", 64)
    sampling = resolved.generation.sampling
    assert (sampling.sampler, sampling.sigma_schedule) == ("dpmpp_2m", "normal")
    assert (sampling.steps, sampling.guidance_scale) == (20, 5.0)
    # "Not used" is not 0: this sampler reads no eta.
    assert not sampling.HasField("eta")
    assert resolved.generation.output.media_type == "image/png"
    assert (resolved.task, resolved.family, resolved.device_id) == ("text_to_image", "sd1", "cpu")
    float32 = image_pb2.PRECISION_FLOAT32
    ran = resolved.execution
    assert (ran.precision, ran.text_encoder_precision, ran.vae_precision) == (float32, float32, float32)
    assert any(library.startswith("torch ") for library in resolved.libraries)
    assert resolved.server_version


def test_a_list_of_seeds_makes_one_picture_each(server: RunningServer) -> None:
    asked = picture(count=0)
    asked.sampling.ClearField("seed")
    asked.sampling.seeds.extend([7, 3])
    result = asking.watch(server, asking.submit(server, asked))[-1].generation_result
    assert [image.seed for image in result.images] == [7, 3]
    assert (result.resolved.generation.image_count, list(result.resolved.generation.sampling.seeds)) == (2, [7, 3])


RESENT = {
    "all by the model's choice": generation_pb2.Generation(prompt="a red apple", width_px=64, height_px=64),
    "two seeds, JPEG": generation_pb2.Generation(
        prompt="an owl",
        negative_prompt="blue",
        width_px=64,
        height_px=72,
        sampling=sampling_pb2.Sampling(
            sampler="euler", sigma_schedule="karras", steps=4, guidance_scale=2.5, seeds=[5, 2**63 - 1]
        ),
        output=image_pb2.EncodeOptions(media_type="image/jpeg"),
        previews=generation_pb2.PreviewOptions(every_steps=2),
    ),
    "eta, WebP, without a manifest": generation_pb2.Generation(
        prompt="a cactus",
        image_count=2,
        width_px=64,
        height_px=64,
        sampling=sampling_pb2.Sampling(sampler="ddim", steps=3, eta=0.5, guidance_scale=1),
        output=image_pb2.EncodeOptions(media_type="image/webp", quality=50, manifest=image_pb2.MANIFEST_DETAIL_NONE),
        determinism=generation_pb2.DETERMINISM_FAST,
    ),
}


@pytest.mark.parametrize("asked", RESENT.values(), ids=RESENT.keys())
def test_a_results_generation_sent_again_gives_the_same_files(
    server: RunningServer, asked: generation_pb2.Generation
) -> None:
    first = asking.watch(server, asking.submit(server, asked))[-1].generation_result
    again = asking.watch(server, asking.submit(server, first.resolved.generation))[-1].generation_result
    assert first.images
    assert [image.file.sha256 for image in again.images] == [image.file.sha256 for image in first.images]
    assert again.resolved == first.resolved


def file_of(server: RunningServer, **output: Any) -> tuple[image_pb2.ImageFile, bytes]:
    asked = picture()
    asked.output.CopyFrom(image_pb2.EncodeOptions(**output))
    (image,) = asking.watch(server, asking.submit(server, asked))[-1].generation_result.images
    return image.file, asking.blob(server, image.file.blob_id)


@pytest.mark.parametrize("media_type", MEDIA_TYPES)
def test_each_format_is_what_it_says(server: RunningServer, media_type: str) -> None:
    file, data = file_of(server, media_type=media_type)
    assert file.media_type == media_type
    assert data[:32].find(SIGNATURES[media_type]) in (0, 4)
    assert b"a red apple" in data
    assert (file.size.width_px, file.size.height_px) == (64, 64)


@pytest.mark.parametrize("media_type", MEDIA_TYPES)
def test_a_picture_is_marked_as_made_by_ai_unless_told_otherwise(server: RunningServer, media_type: str) -> None:
    _, marked = file_of(server, media_type=media_type)
    _, plain = file_of(server, media_type=media_type, provenance=False)
    assert marks_seen_by_exiv2(marked) == "http://cv.iptc.org/newscodes/digitalsourcetype/trainedAlgorithmicMedia"
    assert marks_seen_by_exiv2(plain) is None
    assert imaging.read_manifest(marked) == imaging.read_manifest(plain)
    np.testing.assert_array_equal(decoded(marked), decoded(plain))


def decoded(data: bytes) -> NDArray[np.uint8]:
    return imaging.decode(data, max_pixels=64 * 64)


def marks_seen_by_exiv2(data: bytes) -> str | None:
    with pyexiv2.ImageData(data) as opened:
        return opened.read_xmp().get("Xmp.iptcExt.DigitalSourceType")


@pytest.mark.parametrize("media_type", MEDIA_TYPES)
def test_a_picture_can_go_without_its_manifest_and_keeps_its_mark(server: RunningServer, media_type: str) -> None:
    _, data = file_of(server, media_type=media_type, manifest=image_pb2.MANIFEST_DETAIL_NONE)
    assert imaging.read_manifest(data) is None
    assert b"a red apple" not in data
    assert marks_seen_by_exiv2(data)


@pytest.mark.parametrize("media_type", MEDIA_TYPES)
def test_a_recipe_has_the_hash_of_the_prompt_in_its_place(server: RunningServer, media_type: str) -> None:
    _, data = file_of(server, media_type=media_type, manifest=image_pb2.MANIFEST_DETAIL_RECIPE)
    assert b"a red apple" not in data
    recipe = manifest.parse(imaging.read_manifest(data) or "")
    assert recipe.request.prompt == hashlib.sha256(b"a red apple").hexdigest()
    assert recipe.seed


def test_lossless_webp_has_the_pixels_of_the_png(server: RunningServer) -> None:
    _, webp = file_of(server, media_type="image/webp", lossless=True)
    _, png = file_of(server)
    np.testing.assert_array_equal(decoded(webp), decoded(png))


@pytest.mark.parametrize("media_type", MEDIA_TYPES)
def test_a1111_finds_its_parameters_beside_the_manifest(server: RunningServer, media_type: str) -> None:
    _, data = file_of(server, media_type=media_type, a1111_parameters=True)
    with Image.open(io.BytesIO(data)) as opened:
        comment = opened.getexif().get_ifd(ExifTags.IFD.Exif).get(ExifTags.Base.UserComment, b"")
        text = opened.info.get("parameters") or comment.removeprefix(b"UNICODE\0").decode("utf-16-be")
    assert text.startswith("a red apple\n")
    assert "Size: 64x64" in text
    assert imaging.read_manifest(data)


def test_previews_are_small_pictures_of_the_steps_asked_for(server: RunningServer) -> None:
    updates = asking.watch(server, asking.submit(server, picture(steps=6, previews=2)))
    previews = [update.event.preview for update in updates if asking.kind(update) == "preview"]
    assert previews
    assert {preview.step for preview in previews} <= {2, 4, 6}
    assert all(0 < len(preview.data) <= 256 * 1024 for preview in previews)
    assert all(max(preview.size.width_px, preview.size.height_px) <= 64 for preview in previews)


def test_a_blob_can_be_read_in_parts(server: RunningServer) -> None:
    file = result_of(server).images[0].file
    whole = asking.blob(server, file.blob_id)
    request = memory_service_pb2.ReadBlobRequest(blob_id=file.blob_id, offset_bytes=100, length_bytes=50)
    parts = list(server.memory.ReadBlob(request))
    assert b"".join(part.data for part in parts) == whole[100:150]
    assert parts[0].offset_bytes == 100
    assert parts[0].total_bytes == len(whole)
    blob = server.memory.GetBlob(memory_service_pb2.GetBlobRequest(blob_id=file.blob_id)).blob
    assert (blob.sha256, blob.size_bytes, blob.media_type) == (file.sha256, len(whole), "image/png")


def test_reading_outside_a_blob_names_every_field(server: RunningServer) -> None:
    file = result_of(server).images[0].file
    request = memory_service_pb2.ReadBlobRequest(
        blob_id=file.blob_id, offset_bytes=file.size_bytes + 1, length_bytes=-1, chunk_bytes=7
    )
    refusal = asking.refused(lambda: server.memory.ReadBlob(request))
    assert refusal.code is grpc.StatusCode.INVALID_ARGUMENT
    assert refusal.fields == ["offset_bytes", "length_bytes", "chunk_bytes"]


def test_a_loaded_model_can_be_named_by_its_id(server: RunningServer) -> None:
    asking.watch(server, asking.submit(server))
    asked = picture()
    asked.loaded_model_id = "emoji-sd@cpu"
    job_id = asking.submit(server, asked)
    resolved = asking.watch(server, job_id)[-1].generation_result.resolved
    assert (resolved.generation.model_id, resolved.device_id) == ("emoji-sd", "cpu")
    assert list(asking.job_of(server, job_id).options.devices.device_ids) == ["cpu"]


def test_a_loaded_model_that_is_not_there_is_named(server: RunningServer) -> None:
    asked = picture()
    asked.loaded_model_id = "emoji-sd@cuda:9"
    refusal = asking.refused(lambda: asking.submit(server, asked))
    assert (refusal.code, refusal.reason) == (grpc.StatusCode.NOT_FOUND, "LOADED_MODEL_NOT_FOUND")


def test_a_loaded_model_of_another_model_is_refused(server: RunningServer) -> None:
    asking.watch(server, asking.submit(server))
    asked = picture()
    asked.loaded_model_id, asked.model_id = "emoji-sd@cpu", "another"
    refusal = asking.refused(lambda: asking.submit(server, asked))
    assert (refusal.reason, refusal.fields) == ("UNSUPPORTED_COMBINATION", ["spec.generation.model_id"])
