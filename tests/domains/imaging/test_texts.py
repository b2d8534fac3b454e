"""The texts that say how a picture was made, under the names of the programs that write them."""

import io

import numpy as np
import pytest
from PIL import ExifTags, Image, PngImagePlugin

from domains.errors import ErrorReason, InvalidRequest
from domains.imaging import encode
from domains.imaging.texts import TEXT_BYTES, read_texts

PICTURE = Image.new("RGB", (4, 4))
STEPS = "a fox\nSteps: 20"


def png(**texts: str) -> bytes:
    info, file = PngImagePlugin.PngInfo(), io.BytesIO()
    for name, text in texts.items():
        info.add_text(name, text)
    PICTURE.save(file, "PNG", pnginfo=info)
    return file.getvalue()


def exif(ending: str, comment: bytes | None = None, model: str | None = None) -> bytes:
    block, file = Image.Exif(), io.BytesIO()
    if comment is not None:
        block.get_ifd(ExifTags.IFD.Exif)[ExifTags.Base.UserComment] = comment
    if model is not None:
        block[ExifTags.Base.Model] = model
    PICTURE.save(file, ending, exif=block)
    return file.getvalue()


def test_a_png_has_them_under_their_names_and_others_are_left_out() -> None:
    texts = {"parameters": STEPS, "prompt": "{}", "invokeai_metadata": "[]"}
    assert read_texts(png(**texts, Comment="no recipe")) == texts
    assert read_texts(png(parameters="", prompt="", invokeai_metadata="")) == {}


@pytest.mark.parametrize("order", ["be", "le"])
@pytest.mark.parametrize("ending", ["JPEG", "WEBP"])
def test_parameters_are_read_from_a_comment_in_either_byte_order(ending: str, order: str) -> None:
    comment = b"UNICODE\0" + STEPS.encode(f"utf-16-{order}")
    assert read_texts(exif(ending, comment)) == {"parameters": STEPS}


@pytest.mark.parametrize("comment", [b"ASCII\0\0\0" + STEPS.encode(), b"UNICODE\0" + "a fox".encode("utf-16-be")])
def test_another_comment_holds_no_parameters(comment: bytes) -> None:
    assert read_texts(exif("JPEG", comment)) == {}


def test_a_webp_of_comfyui_has_its_graph_as_the_cameras_model() -> None:
    assert read_texts(exif("WEBP", model='prompt:{"3": {}}')) == {"prompt": '{"3": {}}'}
    assert read_texts(exif("WEBP", model="Nikon D90")) == {}


@pytest.mark.parametrize("media_type", ["image/png", "image/jpeg", "image/webp", "image/avif"])
def test_our_manifest_lies_beside_the_parameters(media_type: str) -> None:
    file = encode(np.zeros((4, 4, 3), np.uint8), media_type, manifest="{}", parameters=STEPS)
    assert read_texts(file) == {"deviceops": "{}", "parameters": STEPS}


def test_a_text_has_a_largest_size() -> None:
    longest = "é" * (TEXT_BYTES // 2)
    assert read_texts(png(prompt=longest)) == {"prompt": longest}
    with pytest.raises(InvalidRequest, match="'prompt' of more than") as refused:
        read_texts(png(prompt=longest + "x"))
    assert refused.value.reason is ErrorReason.BAD_IMAGE
