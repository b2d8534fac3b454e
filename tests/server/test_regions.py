"""Prompts of regions, through the server."""

import io
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from PIL import Image

from deviceops.common.v1 import image_pb2
from deviceops.inference.v1 import conditioning_pb2, generation_pb2, sampling_pb2
from deviceops.postprocessing.v1 import postprocessing_pb2
from domains.imaging import encode
from tests.server import asking
from tests.server.harness import RunningServer

EDGE_PX, SEED = 64, 11


def asked(prompt: str = "a rocket", **more: Any) -> generation_pb2.Generation:
    return generation_pb2.Generation(
        prompt=prompt,
        width_px=EDGE_PX,
        height_px=EDGE_PX,
        sampling=sampling_pb2.Sampling(steps=2, seed=SEED),
        **more,
    )


def box(left: int, top: int, width: int, height: int) -> postprocessing_pb2.PixelBox:
    return postprocessing_pb2.PixelBox(left_px=left, top_px=top, width_px=width, height_px=height)


def region(prompt: str = "a lemon", **more: Any) -> conditioning_pb2.RegionalPrompt:
    given: dict[str, Any] = {"rectangle": box(0, 0, EDGE_PX, EDGE_PX), **more}
    if "mask" in more:
        del given["rectangle"]
    return conditioning_pb2.RegionalPrompt(prompt=prompt, **given)


def mask(pixels: Any) -> image_pb2.ImageInput:
    return image_pb2.ImageInput(data=encode(pixels, "image/png"))


def made(server: RunningServer, generation: generation_pb2.Generation) -> tuple[Any, Any]:
    result = asking.watch(server, asking.submit(server, generation))[-1].generation_result
    file = asking.blob(server, result.images[0].file.blob_id)
    return np.asarray(Image.open(io.BytesIO(file)).convert("RGB")).astype(int), result


def test_one_region_over_the_whole_picture_is_the_plain_prompt_and_the_result_tells_it(server: RunningServer) -> None:
    plain, _ = made(server, asked("a lemon"))
    whole, result = made(server, asked(regions=[region()]))
    other, _ = made(server, asked())
    assert np.abs(whole - plain).max() <= 1
    assert np.abs(other - plain).max() > 1
    (told,) = result.resolved.generation.regions
    assert (told.prompt, told.weight, told.end_ratio, told.rectangle.width_px) == ("a lemon", 1.0, 1.0, EDGE_PX)
    again, _ = made(server, result.resolved.generation)
    assert np.array_equal(again, whole)


def test_a_mask_of_another_size_is_brought_to_the_picture(server: RunningServer) -> None:
    left = np.zeros((8, 8), np.uint8)
    left[:, :4] = 255
    half, _ = made(server, asked(regions=[region(rectangle=box(0, 0, EDGE_PX // 2, EDGE_PX))]))
    exact = np.repeat(np.repeat(left, EDGE_PX // 8, 0), EDGE_PX // 8, 1)
    masked, result = made(server, asked(regions=[region(mask=mask(exact))]))
    assert np.abs(half - masked).max() <= 1
    assert [one.field for one in result.resolved.used_images] == ["regions[0].mask"]
    small, _ = made(server, asked(regions=[region(mask=mask(left))]))
    assert small.shape == half.shape


def _with_outpaint() -> generation_pb2.Generation:
    picture = image_pb2.ImageInput(data=encode(np.zeros((EDGE_PX, EDGE_PX, 3), np.uint8), "image/png"))
    return asked(
        regions=[region()],
        init_image=conditioning_pb2.InitImage(image=picture),
        outpaint=conditioning_pb2.Outpaint(left_px=16),
    )


BAD: dict[str, tuple[Callable[[], generation_pb2.Generation], str, str]] = {
    "outside": (lambda: asked(regions=[region(rectangle=box(EDGE_PX, 0, 8, 8))]), "INVALID_FIELD", "64 is outside"),
    "beyond_the_edge": (
        lambda: asked(regions=[region(rectangle=box(8, 0, 64, 8))]),
        "INVALID_FIELD",
        "64 does not end",
    ),
    "of_no_size": (lambda: asked(regions=[region(rectangle=box(0, 0, 0, 8))]), "INVALID_FIELD", "0 does not end"),
    "nowhere": (
        lambda: asked(regions=[conditioning_pb2.RegionalPrompt(prompt="x")]),
        "INVALID_FIELD",
        "must say where it is",
    ),
    "no_picture": (lambda: asked(regions=[region(mask=image_pb2.ImageInput(data=b"no"))]), "BAD_IMAGE", ""),
    "a_hundred": (lambda: asked(regions=[region()] * 100), "INVALID_FIELD", "at most 16"),
    "an_unknown_lora": (
        lambda: asked(regions=[region(loras=[conditioning_pb2.LoraInput(model_id="x")])]),
        "MODEL_NOT_FOUND",
        "x",
    ),
    "a_lora_too_strong": (
        lambda: asked(regions=[region(loras=[conditioning_pb2.LoraInput(model_id="x", weight=11)])]),
        "INVALID_FIELD",
        "-10..10",
    ),
    "too_many_loras": (
        lambda: asked(regions=[region(loras=[conditioning_pb2.LoraInput(model_id="x")] * 9)]),
        "INVALID_FIELD",
        "at most 8",
    ),
    "and": (
        lambda: asked("a AND b", regions=[region()], prompt_syntax=generation_pb2.PROMPT_SYNTAX_A1111),
        "UNSUPPORTED_COMBINATION",
        "write no AND",
    ),
    "outpaint": (_with_outpaint, "UNSUPPORTED_COMBINATION", "before it grows"),
}


@pytest.mark.parametrize("case", list(BAD))
def test_a_region_that_cannot_count_is_refused_before_there_is_a_job(server: RunningServer, case: str) -> None:
    generation, reason, told = BAD[case]
    refusal = asking.refused(lambda: asking.submit(server, generation()))
    said = refusal.message + "".join(one.description for one in refusal.bad_request.field_violations)
    assert (refusal.reason, told in said) == (reason, True), said
    if case == "outside":
        assert refusal.fields == ["spec.generation.regions[0].rectangle.left_px"]


def test_a_region_over_the_whole_picture_is_the_plain_prompt_in_a_zoomed_part(server: RunningServer) -> None:
    edge = 96
    rows, columns = np.mgrid[0:edge, 0:edge]
    start = np.stack([rows * 2, columns * 2, rows + columns], -1).astype(np.uint8)
    levels = np.zeros((edge, edge), np.uint8)
    levels[40:56, 24:40] = 255

    def zoomed(prompt: str, **more: Any) -> generation_pb2.Generation:
        generation = asked(prompt, **more)
        generation.init_image.image.data = encode(start, "image/png")
        generation.mask.image.data = encode(levels, "image/png")
        generation.mask.zoom_to_mask, generation.mask.zoom_padding_px = True, 8
        return generation

    plain, _ = made(server, zoomed("a lemon"))
    whole, result = made(server, zoomed("a rocket", regions=[region(rectangle=box(0, 0, edge, edge))]))
    other, _ = made(server, zoomed("a rocket"))
    assert whole.shape == (edge, edge, 3), "a rectangle lies in the picture, not in the part"
    assert np.abs(whole - plain).max() <= 1
    assert np.abs(other - plain).max() > 1
    again, _ = made(server, result.resolved.generation)
    assert np.array_equal(again, whole)
    beside, _ = made(server, zoomed("a rocket", regions=[region(rectangle=box(64, 0, 32, edge))]))
    assert np.abs(beside - other).max() <= 1, "a region beside the part does not count in it"
