"""PNG files of ours, read by Pillow, which knows nothing of our writer."""

import io
import struct
import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from numpy.typing import NDArray
from PIL import Image, PngImagePlugin

from domains.errors import ErrorReason, InvalidRequest
from domains.imaging import encode, read_manifest

Pixels = NDArray[np.uint8]
SHAPES = st.tuples(st.integers(1, 33), st.integers(1, 33)).flatmap(
    lambda sides: st.sampled_from([sides, (*sides, 3), (*sides, 4)])
)


def read(file: bytes) -> Pixels:
    with Image.open(io.BytesIO(file)) as image:
        return np.asarray(image)


@given(SHAPES.flatmap(lambda shape: arrays.arrays(np.uint8, shape)))
@settings(max_examples=150, deadline=None)
def test_every_pixel_survives(pixels: Pixels) -> None:
    np.testing.assert_array_equal(read(encode(pixels, "image/png")), pixels)


@pytest.mark.parametrize("shape", [(1, 1, 3), (1, 1), (1, 4099, 3), (4099, 1, 4), (257, 511, 3), (512, 512, 4)])
@pytest.mark.parametrize("noise", [0, 3, 255])
def test_flat_and_noisy_pictures_survive(shape: tuple[int, ...], noise: int) -> None:
    pixels = np.random.default_rng(7).integers(0, noise + 1, shape, dtype=np.uint8)
    np.testing.assert_array_equal(read(encode(pixels, "image/png")), pixels)


def test_a_view_that_is_not_contiguous_is_written_as_seen() -> None:
    pixels = np.random.default_rng(7).integers(0, 256, (40, 60, 3), dtype=np.uint8)[::-2, ::3]
    np.testing.assert_array_equal(read(encode(pixels, "image/png")), pixels)


def test_a_repeating_drawing_is_packed_with_far_matches() -> None:
    """A row that comes back eight rows later: a difference to the row above has needs half as much again."""
    rows = np.random.default_rng(7).integers(0, 256, (8, 64, 1), dtype=np.uint8)
    pixels = np.tile(np.repeat(rows, 12, axis=1), (64, 1, 3))
    assert len(encode(pixels, "image/png")) < pixels.size / 25
    np.testing.assert_array_equal(read(encode(pixels, "image/png")), pixels)


def test_the_same_pixels_give_the_same_bytes() -> None:
    pixels = np.random.default_rng(7).integers(0, 9, (300, 300, 3), dtype=np.uint8)
    assert encode(pixels, "image/png", manifest="m") == encode(pixels.copy(), "image/png", manifest="m")


def test_the_manifest_is_an_international_text_chunk() -> None:
    file = encode(np.zeros((2, 2, 3), np.uint8), "image/png", manifest='{"prompt": "лиса 🦊"}')
    with Image.open(io.BytesIO(file)) as image:
        text = image.info["deviceops"]
    assert isinstance(text, PngImagePlugin.iTXt)
    assert text == '{"prompt": "лиса 🦊"}'


@pytest.mark.parametrize("compressed", [False, True])
def test_a_manifest_that_another_program_wrote_again_is_still_read(compressed: bool) -> None:
    info = PngImagePlugin.PngInfo()
    info.add_itxt("other", "nothing of ours")
    info.add_itxt("deviceops", "лиса", zip=compressed)
    file = io.BytesIO()
    Image.new("RGB", (3, 3)).save(file, "PNG", pnginfo=info)
    assert read_manifest(file.getvalue()) == "лиса"


@pytest.mark.parametrize("text", [b"\xff", b""], ids=["no text", "nothing"])
def test_a_damaged_manifest_is_refused(text: bytes) -> None:
    whole = encode(np.zeros((1, 1), np.uint8), "image/png")
    data = b"deviceops\0" + (b"\0\0\0\0" + text if text else b"\0")
    damaged = struct.pack(">I", len(data)) + b"iTXt" + data + struct.pack(">I", zlib.crc32(b"iTXt" + data))
    with pytest.raises(InvalidRequest, match="damaged") as caught:
        read_manifest(whole[:33] + damaged + whole[33:])
    assert caught.value.reason is ErrorReason.BAD_IMAGE


def test_a_manifest_that_unpacks_without_end_is_refused() -> None:
    info = PngImagePlugin.PngInfo()
    info.add_itxt("deviceops", "a" * (17 << 20), zip=True)
    file = io.BytesIO()
    Image.new("RGB", (1, 1)).save(file, "PNG", pnginfo=info)
    with pytest.raises(InvalidRequest, match="larger than") as caught:
        read_manifest(file.getvalue())
    assert caught.value.reason is ErrorReason.BAD_IMAGE
