"""Files from strangers: refused by name, never by running out of memory."""

import io
import struct
import tracemalloc
import zlib
from functools import partial

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import ExifTags, Image

from domains.errors import ErrorReason, InvalidRequest
from domains.imaging import MEDIA_TYPES, DigitalSource, decode, encode, probe, read_manifest, read_marks

PIXELS = np.random.default_rng(5).integers(0, 256, (40, 56, 3), dtype=np.uint8)
SOURCE = DigitalSource.TRAINED_ALGORITHMIC_MEDIA
FILES = {name: encode(PIXELS, name, manifest='{"seed": 1}', source=SOURCE) for name in MEDIA_TYPES}
LIMIT = 10_000


def saved(image: Image.Image, ending: str, **options: object) -> bytes:
    file = io.BytesIO()
    image.save(file, ending, **options)
    return file.getvalue()


def refusal(data: bytes, max_pixels: int = LIMIT) -> InvalidRequest:
    with pytest.raises(InvalidRequest) as caught:
        decode(data, max_pixels=max_pixels, field="generation.init_image")
    assert caught.value.reason is ErrorReason.BAD_IMAGE
    assert [violation.field for violation in caught.value.violations] == ["generation.init_image"]
    return caught.value


def bomb(side_px: int) -> bytes:
    header = b"IHDR" + struct.pack(">IIBBBBB", side_px, side_px, 8, 2, 0, 0, 0)
    body = b"IDAT" + zlib.compress(bytes(1 << 16))
    chunks = [struct.pack(">I", len(one) - 4) + one + struct.pack(">I", zlib.crc32(one)) for one in (header, body)]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks) + b"\0\0\0\0IEND\xaeB\x60\x82"


def test_a_bomb_is_refused_before_memory_is_taken() -> None:
    file = bomb(60_000)
    tracemalloc.start()
    error = refusal(file, 1 << 24)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert "60000×60000" in error.message
    assert error.facts == {"pixels": "3600000000", "max_pixels": str(1 << 24)}
    assert peak < 1 << 20


@pytest.mark.parametrize("side_px", [6_000, 16_000, 60_000])
def test_an_avif_that_declares_more_than_it_holds_is_refused(side_px: int) -> None:
    plain = FILES["image/avif"]
    at = plain.index(b"ispe") + 8
    refusal(plain[:at] + struct.pack(">II", side_px, side_px) + plain[at + 8 :], 1 << 24)


@pytest.mark.parametrize("media_type", MEDIA_TYPES)
def test_the_limit_itself_is_accepted_and_one_pixel_more_is_not(media_type: str) -> None:
    assert decode(FILES[media_type], max_pixels=40 * 56).shape == (40, 56, 3)
    refusal(FILES[media_type], 40 * 56 - 1)


@pytest.mark.parametrize("media_type", MEDIA_TYPES)
@pytest.mark.parametrize("kept", [0.0, 0.01, 0.3, 0.7, 0.95])
def test_a_file_cut_short_is_refused(media_type: str, kept: float) -> None:
    whole = encode(PIXELS, media_type)
    refusal(whole[: int(len(whole) * kept)])


@pytest.mark.parametrize("data", [b"", b"GIF89a" + bytes(40), b"<svg/>", b"RIFF\x04\0\0\0WAVE"])
def test_other_files_are_refused(data: bytes) -> None:
    refusal(data)


def test_a_size_of_zero_is_refused() -> None:
    assert "0×0" in refusal(bomb(0)).message


@pytest.mark.parametrize("media_type", MEDIA_TYPES)
@given(places=st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 255)), min_size=1, max_size=6))
@settings(max_examples=120, deadline=None)
def test_damage_is_an_error_of_ours_or_a_picture(media_type: str, places: list[tuple[float, int]]) -> None:
    damaged = bytearray(FILES[media_type])
    for place, value in places:
        damaged[int(place**4 * len(damaged))] = value  # mostly in the headers
    for read in (probe, read_manifest, read_marks, partial(decode, max_pixels=LIMIT)):
        reasons: list[ErrorReason] = []
        try:
            read(bytes(damaged))
        except InvalidRequest as error:
            reasons.append(error.reason)
        assert reasons in ([], [ErrorReason.BAD_IMAGE])


def test_orientation_is_applied() -> None:
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6  # turn by 90° clockwise to view
    flat = np.zeros((16, 32, 3), np.uint8)
    flat[:, :16] = 255  # white on the left, which belongs on top
    seen = decode(saved(Image.fromarray(flat), "JPEG", exif=exif), max_pixels=LIMIT)
    assert seen.shape == (32, 16, 3)
    assert seen[:14].min() > 200
    assert seen[18:].max() < 50


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("ending", ["JPEG", "PNG", "WEBP"])
def test_every_orientation_shows_the_same_picture(ending: str, orientation: int) -> None:
    upright = np.zeros((32, 48, 3), np.uint8)
    upright[:16, :24], upright[:16, 24:], upright[16:, :24] = (255, 0, 0), (0, 255, 0), (0, 0, 255)
    # How a camera stores it, by orientation (EXIF 2.32, tag 0x0112).
    stored = {
        1: upright,
        2: upright[:, ::-1],
        3: upright[::-1, ::-1],
        4: upright[::-1],
        5: upright.transpose(1, 0, 2),
        6: np.rot90(upright, 1),
        7: upright[::-1, ::-1].transpose(1, 0, 2),
        8: np.rot90(upright, -1),
    }[orientation]
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    file = saved(Image.fromarray(np.ascontiguousarray(stored)), ending, exif=exif, quality=95)
    seen = decode(file, max_pixels=LIMIT)
    assert seen.shape == upright.shape
    for y, x in ((4, 4), (4, 43), (27, 4), (27, 43)):
        assert np.abs(seen[y, x].astype(int) - upright[y, x]).max() < 40


@pytest.mark.parametrize("ending", ["PNG", "WEBP"])
def test_an_animation_gives_its_first_picture(ending: str) -> None:
    first, second = (Image.fromarray(np.full((8, 8, 3), value, np.uint8)) for value in (200, 20))
    seen = decode(saved(first, ending, save_all=True, append_images=[second], lossless=True), max_pixels=LIMIT)
    assert (seen == 200).all()


def test_sixteen_bits_of_colour_become_eight() -> None:
    # Pillow writes no 16-bit RGB: one row, filter 0.
    row = b"\0" + struct.pack(">6H", 0x1234, 0x8000, 0xFFFF, 0, 0x00FF, 0xABCD)
    parts = [b"IHDR" + struct.pack(">IIBBBBB", 2, 1, 16, 2, 0, 0, 0), b"IDAT" + zlib.compress(row), b"IEND"]
    chunks = [struct.pack(">I", len(one) - 4) + one + struct.pack(">I", zlib.crc32(one)) for one in parts]
    seen = decode(b"\x89PNG\r\n\x1a\n" + b"".join(chunks), max_pixels=LIMIT)
    np.testing.assert_array_equal(seen, [[[0x12, 0x80, 0xFF], [0, 0, 0xAB]]])


def test_transparency_lies_over_white_unless_asked_for() -> None:
    file = encode(np.full((3, 4, 4), (10, 20, 30, 0), np.uint8), "image/png")
    assert (decode(file, max_pixels=LIMIT) == 255).all()
    assert (decode(file, max_pixels=LIMIT, channels=1) == 255).all()
    assert (decode(file, max_pixels=LIMIT, channels=4) == (10, 20, 30, 0)).all()


def test_a_palette_with_a_transparent_colour_is_understood() -> None:
    image = Image.fromarray(np.zeros((3, 4, 3), np.uint8)).convert("P", palette=Image.Palette.ADAPTIVE)
    file = saved(image, "PNG", transparency=image.getpixel((0, 0)))
    assert (decode(file, max_pixels=LIMIT) == 255).all()


def test_sixteen_bits_become_eight() -> None:
    ramp = np.arange(0, 65_536, 257, dtype=np.uint16).reshape(16, 16)
    seen = decode(saved(Image.fromarray(ramp), "PNG"), max_pixels=LIMIT, channels=1)
    np.testing.assert_array_equal(seen, np.arange(256).reshape(16, 16))


def test_an_opaque_picture_gets_full_alpha() -> None:
    assert (decode(FILES["image/png"], max_pixels=LIMIT, channels=4)[..., 3] == 255).all()


def test_print_colours_become_screen_colours() -> None:
    seen = decode(saved(Image.new("CMYK", (8, 8), (0, 0, 0, 0)), "JPEG"), max_pixels=LIMIT)
    assert seen.min() > 250


@pytest.mark.parametrize(
    ("data", "told"),
    [
        (b"", "is empty"),
        (b"GIF89a\1\2\3", "is no PNG, JPEG, WebP or AVIF file: it begins with 47 49 46 38 39 61 01 02"),
        (bomb(0), "declares a size of 0×0 pixels"),
        (FILES["image/png"], "is 56×40 pixels, 2240 in all; at most 2239 are accepted"),
    ],
)
@pytest.mark.skipif("image/avif" not in MEDIA_TYPES, reason="Pillow has no AVIF here")
def test_a_refusal_says_what_is_wrong_with_the_file(data: bytes, told: str) -> None:
    (violation,) = refusal(data, 40 * 56 - 1).violations
    assert violation.message == f"the image {told}"


@pytest.mark.parametrize(("width_px", "height_px"), [(0, 5), (5, 0)])
def test_a_size_of_which_one_side_is_zero_is_refused(width_px: int, height_px: int) -> None:
    file = bytearray(bomb(5))
    file[16:24] = struct.pack(">II", width_px, height_px)
    assert f"a size of {width_px}×{height_px} pixels" in refusal(bytes(file)).message


def test_the_size_that_pillow_read_counts_too() -> None:
    """Pillow believes the last header, so it would allocate for that one."""
    small, large = bomb(8), bomb(60)
    refused = refusal(small[:33] + large[8:], 64)
    assert refused.facts == {"pixels": "3600", "max_pixels": "64"}


def test_the_field_is_image_unless_it_is_said() -> None:
    with pytest.raises(InvalidRequest) as caught:
        decode(b"", max_pixels=LIMIT)
    assert [violation.field for violation in caught.value.violations] == ["image"]


def test_what_was_decoded_can_be_written_to() -> None:
    for channels in (1, 3, 4):
        assert decode(FILES["image/png"], max_pixels=LIMIT, channels=channels).flags.writeable
