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
from domains.imaging import encode, png, read_manifest
from domains.imaging.png_chunks import chunks

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


@pytest.mark.parametrize(("rows", "begin", "end"), [(20, 0, 20), (40, 4, 36), (1024, 496, 528), (4000, 1938, 2062)])
def test_the_ways_are_tried_on_a_band_across_the_middle(
    monkeypatch: pytest.MonkeyPatch, rows: int, begin: int, end: int
) -> None:
    tried: list[NDArray[np.uint8]] = []

    def packed(band: NDArray[np.uint8], filter_type: int, window_bits: int) -> bytes:
        tried.append(band)
        return bytes({(2, 2): 3, (2, 15): 2, (0, 15): 1}[filter_type, window_bits])

    monkeypatch.setattr(png, "_pack", packed)
    numbered = np.arange(rows * 4, dtype=np.uint32).view(np.uint8).reshape(rows, 16)
    encode(numbered, "image/png")
    *bands, whole = tried
    assert len(bands) == 3
    assert all(np.array_equal(band, numbered[begin:end]) for band in bands)
    assert np.array_equal(whole, numbered)


@pytest.mark.parametrize(("usual", "count"), [(8 * 64 // 4, 2), (8 * 64 // 4 - 1, 4)])
def test_a_band_packed_to_a_quarter_is_noise(monkeypatch: pytest.MonkeyPatch, usual: int, count: int) -> None:
    tried: list[tuple[int, int]] = []

    def packed(band: NDArray[np.uint8], filter_type: int, window_bits: int) -> bytes:
        tried.append((filter_type, window_bits))
        return bytes({(2, 2): usual, (2, 15): 50, (0, 15): 60}[filter_type, window_bits])

    monkeypatch.setattr(png, "_pack", packed)
    encode(np.zeros((8, 64), np.uint8), "image/png")
    assert len(tried) == count
    assert tried[-1] == ((2, 2) if count == 2 else (2, 15))


@pytest.mark.parametrize(("channels", "colour_type"), [(1, 0), (3, 2), (4, 6)])
def test_a_file_is_its_header_the_texts_and_one_part_of_rows(channels: int, colour_type: int) -> None:
    pixels = np.random.default_rng(7).integers(0, 256, (5, 7, channels), dtype=np.uint8)
    file = encode(pixels if channels > 1 else pixels[..., 0], "image/png", manifest="m")
    found = [(kind, bytes(data)) for kind, data in chunks(file)]
    assert [kind for kind, _ in found] == [b"IHDR", b"iTXt", b"IDAT", b"IEND"]
    assert found[0][1] == struct.pack(">IIBBBBB", 7, 5, 8, colour_type, 0, 0, 0)
    rows = np.frombuffer(zlib.decompress(found[2][1]), np.uint8).reshape(5, 1 + 7 * channels)
    assert (rows[:, 0] == 2).all(), "the filter UP"
    np.testing.assert_array_equal(np.cumsum(rows[:, 1:], axis=0, dtype=np.uint8), pixels.reshape(5, -1))
