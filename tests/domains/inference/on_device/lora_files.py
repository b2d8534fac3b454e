"""LoRAs with random values for the layers of a model, in the formats in which people exchange them."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import msgspec
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from domains.inference.loras import LoraComponent, ResolvedLora
from domains.model.fingerprint import Fingerprints
from domains.model.model import Model
from domains.model.on_device import OnDeviceModel
from domains.model.weights_model import read_file


def lora_model(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str] | None = None) -> Model:
    """Write a file, and read it as the catalogue does when a job names it."""
    save_file({name: tensor.contiguous().clone() for name, tensor in tensors.items()}, path, dict(metadata or {}))
    model = read_file(path, path.stem, path.stem)
    stamps = Fingerprints().stamps(path.parent, {path.name: path})
    return msgspec.structs.replace(model, files=stamps)


def resolved(model: Model, weight: float = 1.0, **components: float) -> ResolvedLora:
    """The LoRA as a request's resolution names it."""
    return ResolvedLora(
        model_id=model.id,
        model_sha256=model.files[0].sha256,
        weight=weight,
        components=tuple(LoraComponent(component_id=name, weight=one) for name, one in components.items()),
    )


def matrices(layer: nn.Module, rank: int) -> tuple[Tensor, Tensor]:
    """Random `down` and `up` of a linear layer or a convolution; large enough to show."""
    weight: Tensor = layer.weight  # pyright: ignore[reportAssignmentType]
    down = torch.randn(rank, *weight.shape[1:]) * 0.2
    up = torch.randn(weight.shape[0], rank, *[1] * (weight.dim() - 2)) * 0.2
    return down, up


def layers(module: nn.Module, ends: Sequence[str]) -> dict[str, nn.Module]:
    """The layers whose path ends so."""
    return {name: layer for name, layer in module.named_modules() if name.endswith(tuple(ends))}


UNET = ("to_q", "to_k", "to_v", "to_out.0", "ff.net.0.proj", "ff.net.2", "proj_in", "proj_out")
CONVOLUTIONS = ("conv1", "conv2", "time_emb_proj", "conv_shortcut", "downsamplers.0.conv", "upsamplers.0.conv")
TEXT = ("q_proj", "k_proj", "v_proj", "out_proj", "fc1", "fc2")
PREFIX = {"unet": "lora_unet", "text_encoder": "lora_te", "text_encoder_2": "lora_te2"}


def kohya(component: str, path: str) -> str:
    """kohya's name of a layer: for SD 1.x and 2.x with diffusers' names."""
    return f"{PREFIX[component]}_{path.replace('.', '_')}"


def of_all_layers(loaded: OnDeviceModel, path: Path, *, dora: bool) -> Model:
    """A LoRA in kohya's form that changes the layers of the U-Net and of the text encoder."""
    tensors: dict[str, torch.Tensor] = {}
    torch.manual_seed(5)
    for component, ends in {"unet": UNET, "text_encoder": TEXT}.items():
        for place, layer in layers(loaded.modules[component], ends).items():
            name = kohya(component, place)
            tensors[f"{name}.lora_down.weight"], tensors[f"{name}.lora_up.weight"] = matrices(layer, 2)
            if dora:
                weight = layer.get_parameter("weight")
                tensors[f"{name}.dora_scale"] = torch.rand(len(weight)).view(-1, *[1] * (weight.dim() - 1)) + 0.5
    return lora_model(path, tensors)
