"""The texts of a file that say how its picture was made, by the names under which programs write them.

A1111 writes `parameters` (in JPEG, WebP and AVIF as EXIF UserComment), ComfyUI `prompt` (in WebP in the EXIF field Model),
InvokeAI `invokeai_metadata`. Untrusted: `decoder_process` calls this in its own process.
"""

import io
from typing import Any

from PIL import Image

from domains.imaging.bad_image import bad_image
from domains.imaging.manifest import read_manifest

MANIFEST = "deviceops"
"""The name of our own manifest."""
PARAMETERS, COMFYUI, INVOKEAI = "parameters", "prompt", "invokeai_metadata"
TEXT_BYTES = 1 << 20
"""Largest text that is read. A manifest with all prompts that a request may have is smaller."""
_FORMATS = ("PNG", "JPEG", "WEBP", "AVIF")
_EXIF_DIRECTORY, _USER_COMMENT, _MODEL = 0x8769, 0x9286, 0x0110
_UNICODE = b"UNICODE\0"


def read_texts(data: bytes) -> dict[str, str]:
    """The texts, by name. Raises BAD_IMAGE for a broken file, and for a text that is too large."""
    manifest = read_manifest(data)
    found = {} if manifest is None else {MANIFEST: manifest}
    found |= _others(data)
    for name, text in found.items():
        if len(text.encode()) > TEXT_BYTES:
            raise bad_image(f"has a text {name!r} of more than {TEXT_BYTES} bytes")
    return found


def _others(data: bytes) -> dict[str, str]:
    try:
        with Image.open(io.BytesIO(data), formats=_FORMATS) as picture:
            texts = {name: picture.info.get(name) for name in (PARAMETERS, COMFYUI, INVOKEAI)}
            exif = picture.getexif()
            comment, model = exif.get_ifd(_EXIF_DIRECTORY).get(_USER_COMMENT), exif.get(_MODEL)
    except Exception:  # what Pillow raises for a damaged file is not specified; the pixels' decoder tells what is wrong
        return {}
    if isinstance(model, str) and model.startswith(f"{COMFYUI}:"):
        texts[COMFYUI] = model.removeprefix(f"{COMFYUI}:")
    texts[PARAMETERS] = texts[PARAMETERS] or _comment(comment)
    return {name: str(text) for name, text in texts.items() if isinstance(text, str) and text}


def _comment(comment: Any) -> str | None:
    """The text of a UserComment, as A1111 writes it; None for our own manifest and for other comments."""
    if not isinstance(comment, bytes) or not comment.startswith(_UNICODE):
        return None
    text = comment[len(_UNICODE) :]
    # Big-endian, as A1111 writes it; other programs follow the block's order.
    big, little = (text.decode(f"utf-16-{order}", errors="replace") for order in ("be", "le"))
    found = big if "Steps: " in big else little
    return found if "Steps: " in found else None
