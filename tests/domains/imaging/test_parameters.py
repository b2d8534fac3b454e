"""A1111's parameters stand where A1111 looks for them, beside the manifest."""

import io

import numpy as np
import pyexiv2
import pytest
from PIL import ExifTags, Image

from domains.errors import InvalidRequest
from domains.imaging import MEDIA_TYPES, decode, encode, read_manifest
from domains.imaging.jpeg import PARAMETERS_LIMIT_BYTES

PIXELS = np.random.default_rng(5).integers(0, 256, (24, 32, 3), dtype=np.uint8)
IN_EXIF = [name for name in MEDIA_TYPES if name != "image/png"]
TEXTS = ["an owl\nSteps: 20, Sampler: Euler", "сова\nNegative prompt: café\nSteps: 20"]


@pytest.mark.parametrize("text", [TEXTS[0], "café\nSteps: 1", "сова 🦉\nSteps: 1"])
def test_png_has_them_as_a_text_chunk(text: str) -> None:
    file = encode(PIXELS, "image/png", manifest="m", parameters=text)
    with Image.open(io.BytesIO(file)) as image:
        assert image.info["parameters"] == text
    assert read_manifest(file) == "m"


@pytest.mark.parametrize("media_type", IN_EXIF)
@pytest.mark.parametrize("text", TEXTS)
@pytest.mark.parametrize("manifest", [None, "лиса", "x" * 66_000], ids=["alone", "with a manifest", "with a long one"])
def test_other_formats_have_them_as_utf_16_user_comment(media_type: str, text: str, manifest: str | None) -> None:
    file = encode(PIXELS, media_type, manifest=manifest, parameters=text)
    with Image.open(io.BytesIO(file)) as image:
        comment = image.getexif().get_ifd(ExifTags.IFD.Exif)[ExifTags.Base.UserComment]
    assert comment == b"UNICODE\0" + text.encode("utf-16-be")
    with pyexiv2.ImageData(file) as image:
        assert image.read_exif()["Exif.Photo.UserComment"] == f"charset=Unicode {text}"
    assert read_manifest(file) == manifest
    assert decode(file, max_pixels=10_000).shape == PIXELS.shape


def test_what_fits_into_a_jpeg_is_written_and_one_character_more_is_named() -> None:
    longest = "x" * (PARAMETERS_LIMIT_BYTES // 2)
    file = encode(PIXELS, "image/jpeg", manifest="m", parameters=longest)
    assert read_manifest(file) == "m"
    assert decode(file, max_pixels=10_000).shape == PIXELS.shape
    with pytest.raises(InvalidRequest) as refused:
        encode(PIXELS, "image/jpeg", parameters=longest + "x")
    assert [violation.field for violation in refused.value.violations] == ["parameters"]
