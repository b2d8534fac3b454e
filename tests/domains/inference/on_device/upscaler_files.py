"""Upscalers with random values, on disk."""

from pathlib import Path

import msgspec
import torch
from safetensors.torch import save_file
from torch import nn

from domains.model.fingerprint import Fingerprints, hash_of
from domains.model.model import Model
from domains.model.on_device.upscaler import Compact, Esrgan
from domains.model.weights_model import read_file

NETS = {
    "compact-2": lambda: Compact(8, 3, 2),
    "compact-4": lambda: Compact(8, 2, 4),
    "esrgan-4": lambda: Esrgan(8, 4, 1, 4),
    "esrgan-2": lambda: Esrgan(8, 4, 2, 2),
}
"""By name, which ends with the scale."""


def made(name: str, seed: int = 5) -> nn.Module:
    """The network with random values, so large that it shows beside its input."""
    torch.manual_seed(seed)
    return NETS[name]().eval()


def write_upscaler(file: Path, name: str, seed: int = 5) -> Model:
    """The file as the catalogue gives it when a job names it."""
    save_file({key: one.half() for key, one in made(name, seed).state_dict().items()}, file)
    model = read_file(file, file.stem, file.stem)
    stamps = Fingerprints().stamps(file.parent, {file.name: file})
    return msgspec.structs.replace(model, files=stamps, sha256=hash_of(stamps))
