"""Picture files that say how they were made, without this server having made them."""

import io

import numpy as np
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from deviceops.common.v1 import image_pb2
from deviceops.inference.v1 import reproduction_pb2

TEXT = "a red apple\nSteps: 2, Sampler: Euler, CFG scale: 5, Seed: 1, Size: 64x64, Model: emoji-sd"


def with_parameters(text: str = TEXT, pixels: object = None) -> bytes:
    """A PNG file with A1111's text."""
    info = PngInfo()
    info.add_text("parameters", text)
    file = io.BytesIO()
    shown = np.zeros((64, 64, 3), np.uint8) if pixels is None else np.asarray(pixels)
    Image.fromarray(shown).save(file, "PNG", pnginfo=info)
    return file.getvalue()


def work() -> reproduction_pb2.Reproduction:
    """The request to make that picture again."""
    return reproduction_pb2.Reproduction(image=image_pb2.ImageInput(data=with_parameters()))
