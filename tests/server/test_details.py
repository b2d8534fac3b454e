"""Detail passes through the server: what detectors find is made anew, and nothing else changes."""

import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from deviceops.common.v1 import error_pb2, image_pb2
from deviceops.inference.v1 import (
    conditioning_pb2,
    generation_pb2,
    inference_service_pb2,
    passes_pb2,
    reproduction_pb2,
    sampling_pb2,
)
from deviceops.postprocessing.v1 import postprocessing_pb2
from domains.imaging import encode
from tests.domains.inference.on_device.detector_files import red_spots, write_detector
from tests.domains.inference.on_device.tiny_families import write_tiny_family
from tests.server import asking
from tests.server.harness import RunningServer, running_server
from tests.server.test_job_pause import pause, resume, until_paused
from tests.server.test_models import scanned
from tests.server.test_reproduce_image import reproduce

Pixels = NDArray[np.uint8]
EDGE_PX, MADE_PX = 96, 64
"""Of the picture, and of what is made of a find."""
TWO = red_spots(EDGE_PX, (20, 24), (70, 66))
BY: dict[str, Any] = {"strength": 0.5, "steps": 4, "dilation_px": 2, "blur_px": 3, "padding_px": 6, "prompt": "a nose"}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    root: Path = tmp_path_factory.mktemp("details")
    write_tiny_family("sdxl", root / "sdxl")
    write_detector(root / "red.safetensors")
    with running_server("--device", "cpu", "--model-root", str(root), "--model-poll-s", "0") as running:
        scanned(running)
        yield running


def detail(**changes: Any) -> passes_pb2.DetailPass:
    told: dict[str, Any] = {"detector_model_id": "red", "edge_px": MADE_PX, **BY, **changes}
    return passes_pb2.DetailPass(**told)


def asked(pixels: Pixels, *details: passes_pb2.DetailPass, **more: Any) -> generation_pb2.Generation:
    """A picture that stays as it is, with detail passes over it."""
    picture = image_pb2.ImageInput(data=encode(pixels, "image/png"))
    plain: dict[str, Any] = {
        "model_id": "sdxl",
        "prompt": "a rocket",
        "negative_prompt": "fog",
        "init_image": conditioning_pb2.InitImage(image=picture, strength=0.0),
        "sampling": sampling_pb2.Sampling(steps=4, seed=11, sampler="euler"),
        "detail_passes": details,
    }
    return generation_pb2.Generation(**{**plain, **more})


def made(server: RunningServer, generation: generation_pb2.Generation) -> Any:
    last = asking.watch(server, asking.submit(server, generation))[-1]
    assert asking.kind(last) == "succeeded", last.event.failed.failure
    return last.generation_result


def file_of(server: RunningServer, result: Any, index: int = 0) -> bytes:
    return asking.blob(server, result.images[index].file.blob_id)


def shown(file: bytes) -> Pixels:
    return np.asarray(Image.open(io.BytesIO(file)).convert("RGB"))


def inside(box: postprocessing_pb2.PixelBox) -> NDArray[np.bool_]:
    """The pixels of a find's grown box."""
    grown, found = BY["dilation_px"], np.zeros(TWO.shape[:2], bool)
    rows = slice(max(0, box.top_px - grown), box.top_px + box.height_px + grown)
    found[rows, max(0, box.left_px - grown) : box.left_px + box.width_px + grown] = True
    return found


def test_a_find_is_made_anew_as_a_request_for_its_box_makes_it(server: RunningServer) -> None:
    result = made(server, asked(TWO, detail()))
    picture, finds = shown(file_of(server, result)), list(result.images[0].details)
    assert [(one.pass_index, one.found.label) for one in finds] == [(0, "face"), (0, "face")]
    expected, touched = TWO, np.zeros(TWO.shape[:2], bool)
    for one in finds:
        white = inside(one.found.box)
        touched |= white
        mask = conditioning_pb2.InpaintMask(
            image=image_pb2.ImageInput(data=encode((white * np.uint8(255)).astype(np.uint8), "image/png")),
            blur_px=BY["blur_px"],
            zoom_to_mask=True,
            zoom_padding_px=BY["padding_px"],
        )
        one_by_one = asked(expected, prompt=BY["prompt"], mask=mask, width_px=MADE_PX, height_px=MADE_PX)
        one_by_one.init_image.strength, one_by_one.sampling.steps = BY["strength"], BY["steps"]
        expected = shown(file_of(server, made(server, one_by_one)))
    np.testing.assert_array_equal(picture, expected)
    np.testing.assert_array_equal(picture[~touched], TWO[~touched])
    assert (picture[touched] != TWO[touched]).any()


def test_the_result_names_the_detector_and_can_be_asked_for_again(server: RunningServer) -> None:
    result = made(
        server, asked(TWO, detail(detector_model_id="", detector=postprocessing_pb2.DetectorOptions(max_count=1)))
    )
    told = result.resolved.generation.detail_passes[0]
    assert (told.detector_model_id, told.detector.label, told.detector.max_count) == ("red", "face", 1)
    assert told.detector.min_confidence_ratio == 0.5
    (used,) = [one for one in result.resolved.used_models if one.role == "detector"]
    assert (used.model_id, len(used.sha256)) == ("red", 64)
    assert len(result.images[0].details) == 1
    assert file_of(server, made(server, result.resolved.generation)) == file_of(server, result)
    report = reproduce(server, file_of(server, result))
    assert report.verdict == reproduction_pb2.REPRODUCTION_VERDICT_IDENTICAL, report
    assert [one.found.box for one in report.image.details] == [one.found.box for one in result.images[0].details]


def test_where_nothing_is_found_the_picture_stays_and_the_result_warns(server: RunningServer) -> None:
    grey = red_spots(EDGE_PX)
    result = made(server, asked(grey, detail(), detail(detector_model_id="")))
    np.testing.assert_array_equal(shown(file_of(server, result)), grey)
    assert [one.field for one in result.warnings] == [f"generation.detail_passes[{place}]" for place in range(2)]
    assert all("no face was found in picture 0" in one.message for one in result.warnings)
    assert not result.images[0].details


def test_a_plan_says_how_many_steps_finds_can_take(server: RunningServer) -> None:
    one = detail(detector=postprocessing_pb2.DetectorOptions(max_count=5))
    request = inference_service_pb2.PlanGenerationRequest(generation=asked(TWO, one, image_count=2))
    told = server.inference.PlanGeneration(request, timeout=asking.CALL_S)
    (finding,) = [finding for finding in told.findings if finding.field == "generation.detail_passes[0]"]
    assert finding.severity == error_pb2.SEVERITY_INFO
    assert "up to 5 finds a picture anew, each in 2 steps of 64×64 px: up to 20 steps more" in finding.message
    assert not told.estimate.HasField("run_time")


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "another kind": ({"detector_model_id": "sdxl"}, "MODEL_INCOMPATIBLE"),
    "nothing": ({"detector_model_id": "nothing"}, "MODEL_NOT_FOUND"),
    "edge": ({"edge_px": 4}, "INVALID_FIELD"),
    "label": ({"detector": postprocessing_pb2.DetectorOptions(label="hand")}, "INVALID_FIELD"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_detail_pass_that_cannot_be_is_refused(server: RunningServer, name: str) -> None:
    changes, reason = REFUSED[name]
    refusal = asking.refused(lambda: asking.submit(server, asked(TWO, detail(**changes))))
    assert refusal.reason == reason
    if reason == "INVALID_FIELD":
        assert refusal.fields[0].startswith("spec.generation.detail_passes[0].")
    else:
        assert changes["detector_model_id"] in refusal.message


def test_a_server_without_a_detector_says_what_is_missing() -> None:
    with running_server("--device", "cpu") as bare:
        refusal = asking.refused(lambda: asking.submit(bare, asked(TWO, detail(detector_model_id=""), model_id="")))
        assert refusal.reason == "COMPONENT_MISSING"
        assert "detector" in refusal.message


def test_a_job_that_is_paused_while_a_find_is_made_goes_on_there(server: RunningServer) -> None:
    generation = asked(TWO, detail(steps=20))
    whole = file_of(server, made(server, generation))
    job_id = asking.submit(server, generation)
    call = asking.follow(server, job_id)
    asking.until(
        call, lambda update: update.event.progress.stage == "detailing" and update.event.progress.completed > 10
    )
    call.cancel()
    pause(server, job_id)
    assert until_paused(server, job_id).stage == "detailing"
    resume(server, job_id)
    last = asking.watch(server, job_id)[-1]
    assert asking.kind(last) == "succeeded", last
    assert file_of(server, last.generation_result) == whole
    assert not last.generation_result.warnings
