"""ReproduceImage: a picture made again from what its file says, and compared."""

import io
import json
from typing import Any

import grpc
import numpy as np
import pytest
from PIL import Image

from deviceops.common.v1 import image_pb2
from deviceops.inference.v1 import generation_pb2, inference_service_pb2, reproduction_pb2
from deviceops.processing.v1 import job_pb2, processing_service_pb2
from domains.imaging import decode, encode, read_manifest
from tests.server import asking
from tests.server.asking import CALL_S
from tests.server.harness import RunningServer
from tests.server.remade import with_parameters

IDENTICAL = reproduction_pb2.REPRODUCTION_VERDICT_IDENTICAL
DIFFERENT = reproduction_pb2.REPRODUCTION_VERDICT_DIFFERENT


def reproduce(server: RunningServer, file: bytes, **fields: Any) -> reproduction_pb2.ReproductionReport:
    request = inference_service_pb2.ReproduceImageRequest(
        reproduction=reproduction_pb2.Reproduction(image=image_pb2.ImageInput(data=file), **fields)
    )
    messages = list(server.inference.ReproduceImage(request, timeout=CALL_S))
    assert [one.WhichOneof("output") for one in messages if one.WhichOneof("output")] == ["image", "report"]
    return messages[-1].report


def refused(server: RunningServer, file: bytes, **fields: Any) -> str:
    with pytest.raises(grpc.RpcError) as error:
        reproduce(server, file, **fields)
    return asking.Refusal(error.value).reason


def made(server: RunningServer, generation: generation_pb2.Generation) -> list[bytes]:
    """The files of a generation."""
    images = asking.watch(server, asking.submit(server, generation))[-1].generation_result.images
    return [asking.blob(server, image.file.blob_id) for image in images]


@pytest.fixture(scope="module")
def picture(server: RunningServer) -> bytes:
    """A file that the server made."""
    asked = asking.exact_picture(seed=6)
    asked.prompt, asked.prompt_syntax = "an [owl|apple] AND fog:0.3", generation_pb2.PROMPT_SYNTAX_A1111
    return made(server, asked)[0]


def test_a_picture_of_this_server_comes_out_identical(server: RunningServer, picture: bytes) -> None:
    report = reproduce(server, picture)
    assert report.verdict == IDENTICAL
    assert (report.max_difference, report.different_pixels_ratio, list(report.causes)) == (0, 0, [])
    assert not report.HasField("psnr_db")
    assert report.image.seed == 6
    assert report.original.generation == report.present.generation
    assert list(report.original.generation.sampling.seeds) == [6]
    assert report.present.device_id == "cpu"


def test_one_of_several_pictures_is_made_again_alone(server: RunningServer) -> None:
    asked = asking.exact_picture(seed=5)
    asked.image_count = 2
    report = reproduce(server, made(server, asked)[1])
    assert report.max_difference <= 2
    assert list(report.present.generation.sampling.seeds) == [6]
    assert [(one.name, one.original_value, one.present_value) for one in report.causes] == [("image_count", "2", "1")]


def test_a_changed_pixel_is_told_with_what_is_not_the_same(server: RunningServer, picture: bytes) -> None:
    manifest = json.loads(read_manifest(picture) or "")
    manifest["libraries"]["torch"] = "1.0.0"
    pixels = decode(picture, max_pixels=1 << 20).copy()
    pixels[3, 4] ^= 64
    report = reproduce(server, encode(pixels, "image/png", manifest=json.dumps(manifest)))
    assert (report.verdict, report.max_difference) == (DIFFERENT, 64)
    assert report.different_pixels_ratio == pytest.approx(1 / 64**2)
    (cause,) = report.causes
    assert (cause.name, cause.original_value) == ("library", "torch 1.0.0")
    assert cause.present_value.startswith("torch ")
    generous = reproduce(server, encode(pixels, "image/png", manifest=json.dumps(manifest)), tolerance=64)
    assert generous.verdict == reproduction_pb2.REPRODUCTION_VERDICT_WITHIN_TOLERANCE


def test_a1111s_text_makes_the_same_picture(server: RunningServer) -> None:
    asked = asking.exact_picture(seed=9)
    asked.output.a1111_parameters = True
    (file,) = made(server, asked)
    text = Image.open(io.BytesIO(file)).info["parameters"]
    report = reproduce(server, with_parameters(f"{text}, Hires upscaler: None", decode(file, max_pixels=1 << 20)))
    assert report.max_difference <= 2
    assert {one.name for one in report.causes} >= {"Hires upscaler", "server_version"}
    lora = reproduce(server, with_parameters(text.replace("a red apple", "a red apple <lora:nosuch:0.7>")))
    assert ("lora", "nosuch:0.7") in [(one.name, one.original_value) for one in lora.causes]


def test_a_reproduction_is_a_job_like_any_other(server: RunningServer, picture: bytes) -> None:
    work = reproduction_pb2.Reproduction(image=image_pb2.ImageInput(data=picture))
    request = processing_service_pb2.SubmitJobRequest(spec=job_pb2.JobSpec(reproduction=work), request_id="again-1")
    job = server.processing.SubmitJob(request, timeout=CALL_S).job
    assert server.processing.SubmitJob(request, timeout=CALL_S).job.id == job.id
    last = asking.watch(server, job.id)[-1]
    assert last.reproduction_report.verdict == IDENTICAL
    kept = server.processing.GetJob(processing_service_pb2.GetJobRequest(job_id=job.id), timeout=CALL_S).job
    assert (kept.kind, kept.reproduction_report.verdict) == (job_pb2.JOB_KIND_REPRODUCTION, IDENTICAL)
    assert kept.spec.reproduction.image.blob_id


def test_what_cannot_be_made_again_is_refused(server: RunningServer, picture: bytes) -> None:
    plain = encode(np.zeros((64, 64, 3), np.uint8), "image/png")
    settings = "Steps: 2, Sampler: Euler, CFG scale: 5, Seed: 1, Size: 64x64"
    assert refused(server, plain) == "BAD_IMAGE"
    assert refused(server, b"no picture") == "BAD_IMAGE"
    assert refused(server, b"") == "INVALID_FIELD"
    assert refused(server, picture, tolerance=256) == "INVALID_FIELD"
    assert refused(server, picture, model_id="nosuch") == "MODEL_NOT_FOUND"
    assert refused(server, with_parameters(f"an owl\n{settings}, Model: nosuch")) == "MODEL_NOT_FOUND"
    wrong = with_parameters(f"an owl\n{settings.replace('Steps: 2', 'Steps: 99999')}, Model: emoji-sd")
    assert refused(server, wrong) == "BAD_IMAGE"
