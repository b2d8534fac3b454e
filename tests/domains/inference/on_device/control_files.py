"""ControlNets with random values that fit tiny models, on disk, and control maps."""

from hashlib import sha256
from pathlib import Path
from typing import Any

import msgspec
import torch
from diffusers.models.controlnets.controlnet import ControlNetModel
from torch import Tensor

from domains.inference.controls import ResolvedControl, UsedPicture
from domains.inference.given import GivenControl
from domains.inference.image_fit import ImageFit
from domains.inference.kept_file import KeptFile
from domains.model.fingerprint import Fingerprints, hash_of
from domains.model.model import Model
from domains.model.weights_model import read_component_folder

EMBEDDING = {8: (8, 8, 8, 16), 4: (8, 8, 16), 2: (8, 16)}
"""Channels of the embedding of the control map, by the edge of a latent pixel."""


def write_controlnet(folder: Path, loaded: Any, scale_px: int, seed: int = 1, **changes: Any) -> Model:
    """A ControlNet like a model's U-Net, whose zero convolutions are not zero."""
    torch.manual_seed(seed)
    unet: Any = loaded.modules["unet"]
    channels = EMBEDDING[scale_px]
    net: Any = ControlNetModel.from_unet(
        unet, conditioning_embedding_out_channels=channels, load_weights_from_unet=False
    )
    if changes:
        net = ControlNetModel.from_config({**net.config, **changes})
    for module in (*net.controlnet_down_blocks, net.controlnet_mid_block, net.controlnet_cond_embedding.conv_out):
        torch.nn.init.normal_(module.weight, std=0.3)
    net.save_pretrained(folder)
    return control_model(folder)


def control_model(folder: Path) -> Model:
    """The folder as the catalogue gives it when a job names it."""
    model = read_component_folder(folder, folder.name, lambda path: path)
    files = {file.path: Path(file.real) for file in model.files}
    weights = {name: path for name, path in files.items() if name.endswith(".safetensors")}
    stamps = Fingerprints().stamps(folder, weights)
    others = tuple(file for file in model.files if file.path not in weights)
    return msgspec.structs.replace(model, files=(*stamps, *others), sha256=hash_of(stamps))


def stripes(width: int, height: int, phase: int = 0) -> Tensor:
    """A control map, (height, width, 3) uint8."""
    rows, columns = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    return torch.stack([(rows + phase) * 9 % 256, columns * 7 % 256, (rows + columns) * 3 % 256], -1).to(torch.uint8)


def stored(pixels: Tensor, folder: Path, name: str = "map") -> KeptFile:
    """Pixels as a worker gets them."""
    data = pixels.contiguous().numpy().tobytes()
    path = folder / name
    path.write_bytes(data)
    return KeptFile(path=str(path), sha256=sha256(data).hexdigest())


def control(model: Model, **changes: Any) -> ResolvedControl:
    """The control as a request's resolution names it."""
    used = UsedPicture(blob_id="b-2", sha256="0" * 64)
    plain = ResolvedControl(model_id=model.id, model_sha256=model.sha256, image=used, fit=ImageFit.COVER)
    return msgspec.structs.replace(plain, **changes)


def given(
    model: Model, pixels: Tensor, folder: Path, region: Tensor | None = None, hidden: Tensor | None = None
) -> GivenControl:
    """What a worker gets for it."""
    name = sha256(pixels.numpy().tobytes()).hexdigest()
    kept = None if region is None else stored(region, folder, "region")
    missing = None if hidden is None else stored(hidden, folder, "hidden")
    return GivenControl(model=model, map=stored(pixels, folder, name), region=kept, hidden=missing)
