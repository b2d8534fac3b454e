"""Inpainting through the server: which bytes stay, whose the mask is, what is told, and what is refused by its field."""

from typing import Any

import numpy as np
import pytest

from deviceops.common.v1 import image_pb2
from deviceops.inference.v1 import conditioning_pb2, generation_pb2
from deviceops.processing.v1 import job_pb2, processing_service_pb2
from domains.imaging import encode
from tests.server import asking
from tests.server.harness import RunningServer
from tests.server.test_image_to_image import PIXELS, blob_exists, finished, from_picture, shown, upload

WHITE = np.zeros((64, 80, 4), np.uint8)
WHITE[16:40, 24:56] = 255
"""Transparent where it is black: laid over white, all of it would be white."""
MASK = encode(WHITE, "image/png")


def masked(data: bytes = MASK, blob_id: str = "", **changes: Any) -> generation_pb2.Generation:
    """A generation of a part of a picture."""
    generation = from_picture(steps=2, **changes)
    source = image_pb2.ImageInput(blob_id=blob_id) if blob_id else image_pb2.ImageInput(data=data)
    generation.mask.CopyFrom(conditioning_pb2.InpaintMask(image=source))
    return generation


def test_only_the_masked_part_is_made_anew_and_the_resolved_request_asks_for_the_same(server: RunningServer) -> None:
    result = finished(server, masked())
    found, outside = shown(server, result.images[0]), WHITE[..., 0] == 0
    np.testing.assert_array_equal(found[outside], PIXELS[outside])
    assert (found[~outside] != PIXELS[~outside]).any()
    assert result.resolved.task == "inpainting"
    told = result.resolved.generation.mask
    assert (told.blur_px, told.blend, told.fill) == (
        *(8, conditioning_pb2.MASK_BLEND_FEATHER),
        conditioning_pb2.MASK_FILL_ORIGINAL,
    )
    again = finished(server, result.resolved.generation)
    assert again.images[0].file.sha256 == result.images[0].file.sha256
    assert again.resolved.generation.mask == told


def test_a_zoom_puts_a_part_of_another_size_back_into_the_whole_picture(server: RunningServer) -> None:
    generation = masked()
    generation.width_px = generation.height_px = 64
    generation.mask.zoom_to_mask, generation.mask.zoom_padding_px = True, 4
    result = finished(server, generation)
    found = shown(server, result.images[0])
    assert (found.shape, result.images[0].file.size.width_px) == (PIXELS.shape, 80)
    np.testing.assert_array_equal(found[WHITE[..., 0] == 0], PIXELS[WHITE[..., 0] == 0])
    again = finished(server, result.resolved.generation)
    assert again.images[0].file.sha256 == result.images[0].file.sha256


def test_a_picture_grows_and_its_resolved_request_grows_it_alike(server: RunningServer) -> None:
    generation = from_picture(steps=2)
    generation.outpaint.CopyFrom(conditioning_pb2.Outpaint(left_px=8, bottom_px=16, overlap_px=8))
    result = finished(server, generation)
    found, told = shown(server, result.images[0]), result.resolved.generation
    assert (result.resolved.task, found.shape) == ("outpainting", (80, 88, 3))
    assert (told.width_px, told.height_px, told.outpaint.left_px) == (80, 64, 8)
    np.testing.assert_array_equal(found[:56, 16:], PIXELS[:56, 8:])
    again = finished(server, told)
    assert again.images[0].file.sha256 == result.images[0].file.sha256


def test_an_inline_mask_leaves_with_its_job_and_an_uploaded_one_stays(server: RunningServer) -> None:
    own = encode(255 - WHITE, "image/png")
    uploaded = upload(server, MASK)
    for generation, kept in ((masked(own, strength=0.0), False), (masked(blob_id=uploaded, strength=0.0), True)):
        job_id = asking.submit(server, generation)
        asking.watch(server, job_id)
        blob_id = asking.job_of(server, job_id).spec.generation.mask.image.blob_id
        asking.delete(server, job_id)
        assert blob_exists(server, blob_id) == kept


BAD: dict[str, tuple[bytes, str, str]] = {
    "another size": (encode(WHITE[:32], "image/png"), "generation.mask.image", "INVALID_FIELD"),
    "no picture": (b"GIF89a", "generation.mask.image", "BAD_IMAGE"),
}


@pytest.mark.parametrize("case", list(BAD))
def test_a_mask_that_cannot_be_read_or_fitted_is_refused_by_its_field(server: RunningServer, case: str) -> None:
    data, field, reason = BAD[case]
    refusal = asking.refused(lambda: asking.generate(server, masked(data)))
    assert (refusal.fields, refusal.reason) == ([field], reason)
    request = processing_service_pb2.SubmitJobRequest(spec=job_pb2.JobSpec(generation=masked(data)), validate_only=True)
    (finding,) = server.processing.SubmitJob(request, timeout=asking.CALL_S).findings
    assert finding.field == f"spec.{field}"
