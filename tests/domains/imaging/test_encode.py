"""All formats: what goes in comes out, for us and for Pillow."""

import io
from typing import Any, Literal

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import ExifTags, Image

from domains.errors import ErrorReason, InvalidRequest
from domains.imaging import MEDIA_TYPES, decode, encode, probe, read_manifest
from domains.imaging.avif import is_avif

LOSSY = [name for name, known in MEDIA_TYPES.items() if known.lossy]


def gradient(height: int, width: int, channels: int = 3) -> NDArray[np.uint8]:
    """Smooth, so that a lossy format keeps it nearly as it is."""
    y, x = np.mgrid[0:height, 0:width]
    planes = [y * 255 // height, x * 255 // width, 255 - y * 255 // height, 255 - x * 128 // width]
    return np.stack(planes[:channels], axis=-1).astype(np.uint8)


@pytest.mark.parametrize("media_type", MEDIA_TYPES)
@given(text=st.text(st.characters(exclude_categories=["Cs"]), max_size=300))
@settings(max_examples=40, deadline=None)
def test_any_manifest_comes_back(media_type: str, text: str) -> None:
    assert read_manifest(encode(gradient(9, 7), media_type, manifest=text)) == text


@pytest.mark.parametrize("media_type", MEDIA_TYPES)
def test_a_file_without_manifest_has_none(media_type: str) -> None:
    assert read_manifest(encode(gradient(9, 7), media_type)) is None


@pytest.mark.parametrize("media_type", LOSSY)
def test_pillow_finds_the_manifest_as_user_comment(media_type: str) -> None:
    with Image.open(io.BytesIO(encode(gradient(9, 7), media_type, manifest='{"seed": 1}'))) as image:
        image.load()
        comment = image.getexif().get_ifd(ExifTags.IFD.Exif)[ExifTags.Base.UserComment]
    assert comment == b'ASCII\0\0\0deviceops:{"seed": 1}'


@pytest.mark.parametrize("media_type", LOSSY)
def test_a_manifest_survives_a_program_that_rewrites_the_metadata(media_type: str) -> None:
    with Image.open(io.BytesIO(encode(gradient(9, 7), media_type, manifest="лиса"))) as image:
        exif, again = image.getexif(), io.BytesIO()
        exif[ExifTags.Base.Artist] = "somebody"
        image.save(again, image.format, exif=exif)
    assert read_manifest(again.getvalue()) == "лиса"


@pytest.mark.parametrize("media_type", LOSSY)
def test_a_strangers_comment_is_no_manifest(media_type: str) -> None:
    exif, file = Image.Exif(), io.BytesIO()
    exif.get_ifd(ExifTags.IFD.Exif)[ExifTags.Base.UserComment] = b"ASCII\0\0\0steps: 20"
    Image.new("RGB", (4, 4)).save(file, MEDIA_TYPES[media_type].extension[1:].replace("jpg", "jpeg"), exif=exif)
    assert read_manifest(file.getvalue()) is None


@pytest.mark.parametrize("media_type", LOSSY)
@pytest.mark.parametrize("manifest", [None, "m"])
def test_lossy_pixels_stay_near(media_type: str, manifest: str | None) -> None:
    pixels = gradient(64, 96)
    again = decode(encode(pixels, media_type, quality=95, manifest=manifest), max_pixels=10_000)
    assert np.abs(again.astype(int) - pixels).mean() < 3


@pytest.mark.parametrize("media_type", LOSSY)
def test_less_quality_is_a_smaller_file(media_type: str) -> None:
    pixels = np.random.default_rng(3).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    low, unsaid, high = (len(encode(pixels, media_type, quality=quality)) for quality in (10, None, 100))
    assert low < unsaid < high


@pytest.mark.parametrize("media_type", [name for name, known in MEDIA_TYPES.items() if known.lossless])
@pytest.mark.parametrize("manifest", [None, "m", "mm"])
@pytest.mark.parametrize("channels", [1, 3, 4])
def test_lossless_keeps_every_pixel(media_type: str, manifest: str | None, channels: Literal[1, 3, 4]) -> None:
    pixels = np.random.default_rng(3).integers(0, 256, (31, 45, channels), dtype=np.uint8)
    pixels = pixels[..., 0] if channels == 1 else pixels
    file = encode(pixels, media_type, lossless=True, manifest=manifest)
    np.testing.assert_array_equal(decode(file, max_pixels=10_000, channels=channels), pixels)
    assert read_manifest(file) == manifest


@pytest.mark.parametrize("manifest", [None, "m", "mm"])
def test_webp_keeps_alpha(manifest: str | None) -> None:
    pixels = gradient(32, 48, 4)
    again = decode(encode(pixels, "image/webp", manifest=manifest), max_pixels=10_000, channels=4)
    np.testing.assert_allclose(again[..., 3], pixels[..., 3], atol=2)


@pytest.mark.parametrize("media_type", ["image/png", "image/webp", "image/avif"])
def test_alpha_is_kept(media_type: str) -> None:
    pixels = gradient(64, 96, 4)
    again = decode(
        encode(pixels, media_type, quality=None if media_type == "image/png" else 95), max_pixels=10_000, channels=4
    )
    assert np.abs(again[..., 3].astype(int) - pixels[..., 3]).mean() < 3


@pytest.mark.parametrize(
    ("box", "expected"),
    [
        (b"\0\0\0\x10ftypavif\0\0\0\0", True),
        (b"\0\0\0\x10ftypavis\0\0\0\0", True),
        (b"\0\0\0\x18ftypmif1\0\0\0\0miafavif", True),
        (b"\0\0\0\x14ftypmif1\0\0\0\0miafavif", False),  # beyond the box
        (b"\0\0\0\x14ftypmif1avifmiaf", False),  # a version
        (b"\0\0\0\x10moovavif\0\0\0\0", False),
    ],
)
def test_a_brand_of_the_first_box_makes_an_avif(box: bytes, expected: bool) -> None:
    assert is_avif(box) is expected


@pytest.mark.parametrize("media_type", MEDIA_TYPES)
def test_grey_is_written(media_type: str) -> None:
    pixels = gradient(32, 48, 1)[..., 0]
    again = decode(encode(pixels, media_type, quality=None), max_pixels=10_000, channels=1)
    np.testing.assert_allclose(again, pixels, atol=6)


@pytest.mark.parametrize("media_type", MEDIA_TYPES)
@given(width=st.integers(1, 70), height=st.integers(1, 70), manifest=st.sampled_from([None, "m"]))
@settings(max_examples=25, deadline=None)
def test_probe_says_the_size(media_type: str, width: int, height: int, manifest: str | None) -> None:
    header = probe(encode(gradient(height, width), media_type, manifest=manifest))
    assert (header.media_type, header.width_px, header.height_px) == (media_type, width, height)


@pytest.mark.parametrize("media_type", MEDIA_TYPES)
@pytest.mark.parametrize("manifest", ["x" * 66_000, "лиса" * 40_000], ids=["ascii", "utf-8"])
def test_a_manifest_of_two_long_prompts_comes_back(media_type: str, manifest: str) -> None:
    file = encode(gradient(9, 7), media_type, manifest=manifest)
    assert read_manifest(file) == manifest
    assert decode(file, max_pixels=100).shape == (9, 7, 3)


def test_a_long_manifest_of_which_a_part_is_gone_is_told() -> None:
    file = encode(gradient(9, 7), "image/jpeg", manifest="x" * 140_000)
    second = file.index(b"deviceops manifest\0\x01")
    with pytest.raises(InvalidRequest) as told:
        read_manifest(file[: second - 4] + file[second - 4 + 65_535 + 2 :])
    assert told.value.reason is ErrorReason.BAD_IMAGE


@pytest.mark.parametrize(
    ("pixels", "media_type", "quality", "field"),
    [
        (np.zeros((2, 2, 3), np.uint8), "image/gif", None, "media_type"),
        (np.zeros((2, 2, 2), np.uint8), "image/png", None, "pixels"),
        (np.zeros((2, 2, 3), np.float32), "image/png", None, "pixels"),
        (np.zeros((0, 2, 3), np.uint8), "image/png", None, "pixels"),
        (np.zeros((2, 2, 4), np.uint8), "image/jpeg", None, "pixels"),
        (np.zeros((1, 16_384), np.uint8), "image/webp", None, "pixels"),
        (np.zeros((2, 2, 3), np.uint8), "image/jpeg", 0, "quality"),
        (np.zeros((2, 2, 3), np.uint8), "image/webp", 101, "quality"),
        (np.zeros((2, 2, 3), np.uint8), "image/png", 90, "quality"),
    ],
)
def test_what_cannot_be_written_is_named(
    pixels: NDArray[Any], media_type: str, quality: int | None, field: str
) -> None:
    with pytest.raises(InvalidRequest) as caught:
        encode(pixels, media_type, quality=quality)
    assert [violation.field for violation in caught.value.violations] == [field]


@pytest.mark.parametrize(
    ("media_type", "quality", "field"),
    [("image/jpeg", None, "lossless"), ("image/avif", None, "lossless"), ("image/webp", 90, "quality")],
)
def test_what_cannot_be_lossless_is_named(media_type: str, quality: int | None, field: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        encode(gradient(4, 4), media_type, quality=quality, lossless=True)
    assert [violation.field for violation in caught.value.violations] == [field]


WRITTEN = "image/png, image/jpeg, image/webp, image/avif"
LARGE, WIDE = np.zeros((1, 65_501), np.uint8), np.zeros((2, 16_384, 3), np.uint8)


@pytest.mark.skipif("image/avif" not in MEDIA_TYPES, reason="Pillow has no AVIF here")
@pytest.mark.parametrize(
    ("pixels", "media_type", "more", "field", "message", "allowed"),
    [
        (LARGE[:, :2], "image/gif", {}, "media_type", f"cannot write 'image/gif'; known: {WRITTEN}", WRITTEN),
        (LARGE[0], "image/png", {}, "pixels", "must be uint8 (height, width[, 3 | 4]), not uint8 (65501,)", ""),
        (
            LARGE[:1, :2].reshape(1, 1, 2),
            "image/png",
            {},
            "pixels",
            "must be uint8 (height, width[, 3 | 4]), not uint8 (1, 1, 2)",
            "",
        ),
        (LARGE > 0, "image/png", {}, "pixels", "must be uint8 (height, width[, 3 | 4]), not bool (1, 65501)", ""),
        (
            *(LARGE[:1, :4].reshape(1, 1, 4), "image/jpeg", {}, "pixels"),
            *("image/jpeg has no alpha; drop the channel, or ask for image/png or image/webp", ""),
        ),
        (LARGE, "image/jpeg", {}, "pixels", "65501×1 pixels; image/jpeg takes sides of 1..65500", ""),
        (WIDE, "image/webp", {}, "pixels", "16384×2 pixels; image/webp takes sides of 1..16383", ""),
        (
            WIDE[None],
            "image/png",
            {},
            "pixels",
            "must be uint8 (height, width[, 3 | 4]), not uint8 (1, 2, 16384, 3)",
            "",
        ),
        (LARGE.T, "image/jpeg", {}, "pixels", "1×65501 pixels; image/jpeg takes sides of 1..65500", ""),
        (LARGE[:0], "image/png", {}, "pixels", "65501×0 pixels; image/png takes sides of 1..2147483647", ""),
        (
            *(LARGE[:, :2], "image/jpeg", {"lossless": True}, "lossless"),
            *("image/jpeg cannot be written without loss; these can: image/png, image/webp", "image/png, image/webp"),
        ),
        (LARGE[:, :2], "image/jpeg", {"quality": 0}, "quality", "must be 1..100, not 0", "1..100"),
        (LARGE[:, :2], "image/webp", {"quality": 101}, "quality", "must be 1..100, not 101", "1..100"),
        (LARGE[:, :2], "image/png", {"quality": 1}, "quality", "image/png is lossless; leave the quality absent", ""),
        (
            *(LARGE[:, :2], "image/webp", {"quality": 1, "lossless": True}, "quality"),
            *("image/webp is lossless; leave the quality absent", ""),
        ),
        (
            *(LARGE[:, :2], "image/jpeg", {"parameters": "x" * 32_738}, "parameters"),
            *("has 65476 bytes as UTF-16; image/jpeg holds at most 65474", "0..65474 bytes"),
        ),
    ],
)
def test_a_refusal_says_what_is_wrong_and_what_would_work(
    pixels: NDArray[Any], media_type: str, more: dict[str, Any], field: str, message: str, allowed: str
) -> None:
    with pytest.raises(InvalidRequest) as caught:
        encode(pixels, media_type, **more)
    assert caught.value.reason is ErrorReason.UNSUPPORTED_COMBINATION
    assert [(one.field, one.message, one.allowed) for one in caught.value.violations] == [(field, message, allowed)]


def test_all_that_is_wrong_is_named() -> None:
    with pytest.raises(InvalidRequest) as caught:
        encode(gradient(4, 4, 4), "image/jpeg", quality=0, parameters="x" * 40_000)
    assert [violation.field for violation in caught.value.violations] == ["pixels", "quality", "parameters"]


@pytest.mark.parametrize("media_type", LOSSY)
@pytest.mark.parametrize("quality", [1, 100])
def test_the_ends_of_the_range_of_quality_are_accepted(media_type: str, quality: int) -> None:
    assert probe(encode(gradient(4, 4), media_type, quality=quality)).width_px == 4


@pytest.mark.parametrize("media_type", LOSSY)
def test_the_quality_is_90_unless_it_is_said(media_type: str) -> None:
    noise = np.random.default_rng(3).integers(0, 256, (32, 32, 3), dtype=np.uint8)
    assert encode(noise, media_type) == encode(noise, media_type, quality=90)
    assert len({encode(noise, media_type, quality=quality) for quality in (50, 90, 100)}) == 3


@pytest.mark.parametrize(("media_type", "side_px"), [("image/jpeg", 65_500), ("image/webp", 16_383)])
def test_the_longest_side_is_written(media_type: str, side_px: int) -> None:
    assert probe(encode(np.zeros((1, side_px), np.uint8), media_type)).width_px == side_px
    assert probe(encode(np.zeros((side_px, 1), np.uint8), media_type)).height_px == side_px


def test_colours_keep_their_order() -> None:
    for media_type in MEDIA_TYPES:
        for colour in ((255, 0, 0), (0, 0, 255), (255, 0, 0, 255), (0, 0, 255, 255)):
            if len(colour) == 4 and media_type == "image/jpeg":
                continue
            seen = decode(encode(np.full((16, 16, len(colour)), colour, np.uint8), media_type), max_pixels=256)
            assert np.abs(seen.astype(int) - colour[:3]).max() < 12


@pytest.mark.parametrize(("lossless", "kind"), [(False, b"VP8 "), (True, b"VP8L")])
def test_a_webp_without_texts_is_the_encoders_own(lossless: bool, kind: bytes) -> None:
    assert encode(gradient(4, 4), "image/webp", lossless=lossless)[12:16] == kind
    assert encode(gradient(4, 4), "image/webp", lossless=lossless, manifest="m")[12:16] == b"VP8X"
