"""Detectors of faces on disk: one with random values, and one that finds what is red."""

from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import save_file

from domains.model.fingerprint import Fingerprints, hash_of
from domains.model.model import Model
from domains.model.on_device.face_detector import FaceDetector
from domains.model.weights_model import read_file

BOX_PX = 60.0
"""Edge of the boxes that the second one finds, in pixels of its input."""
RED = (255, 0, 0)


def random_detector(seed: int = 5) -> FaceDetector:
    """Random values, with each kind of block and merge."""
    torch.manual_seed(seed)
    return FaceDetector(8, [[(8, 4)], [(12, 4), (12, 4)], [(16, 8)]], [(12, 4, 2), (8, 4, 1)]).eval()


def red_detector() -> FaceDetector:
    """Finds squares around what is as red as a red pixel. All between the first convolution and the last ones is zero, so
    that the blocks hand their input on."""
    net: Any = FaceDetector(4, [[(4, 4)], [(4, 4)]], [(4, 4, 1)]).eval()
    with torch.no_grad():
        for one in net.parameters():
            one.zero_()
        # Red less green less blue: 3 for red, 1 for black, less for all that is brighter.
        net.stem.weight[0, :, 1, 1] = torch.tensor([1.0, -1.0, -1.0])
        net.merges[0].skip.weight[0, 0, 0, 0] = 1
        net.score.weight[0, 0, 0, 0], net.score.bias[0] = 20, -50
        net.box.bias[2:4] = BOX_PX
    return net


def red_spots(edge_px: int, *places: tuple[int, int], spot_px: int = 4) -> NDArray[np.uint8]:
    """A grey picture with red squares at these places (left, top)."""
    rows, columns = np.mgrid[0:edge_px, 0:edge_px]
    pixels = np.stack([rows + 60, columns + 60, rows + columns + 60], -1).clip(0, 255).astype(np.uint8)
    for left, top in places:
        pixels[top : top + spot_px, left : left + spot_px] = RED
    return pixels


def write_detector(file: Path, net: FaceDetector | None = None) -> Model:
    """The file as the catalogue gives it when a job names it."""
    tensors = (net or red_detector()).state_dict()
    save_file({name: one.half().contiguous() for name, one in tensors.items()}, file)
    model = read_file(file, file.stem, file.stem)
    stamps = Fingerprints().stamps(file.parent, {file.name: file})
    return msgspec.structs.replace(model, files=stamps, sha256=hash_of(stamps))
