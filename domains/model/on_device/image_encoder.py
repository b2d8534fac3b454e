"""Loads the vision encoder of a CLIP (Radford et al. 2021) or a SigLIP (Zhai et al. 2023), which reads the pictures of
IP-Adapters."""

from collections.abc import Generator, Mapping, Sequence
from typing import Any

from torch import Tensor, nn
from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection, SiglipVisionConfig, SiglipVisionModel

from domains.model.image_encoders import encoder_config, is_siglip
from domains.model.model import Model
from domains.model.on_device.components import built
from domains.model.on_device.network_loading import loading_network
from domains.model.on_device.on_device_model import OnDeviceModel
from domains.model.on_device.reading import Ready
from domains.model.on_device.weights import Source, Sources
from domains.model.safetensors_header import TensorEntry
from domains.model.weight_file import WeightFile

_OPTIONS = (
    *("hidden_size", "intermediate_size", "projection_dim", "num_hidden_layers", "num_attention_heads"),
    *("num_channels", "image_size", "patch_size", "hidden_act", "layer_norm_eps"),
)
"""All options that shape the encoder. Others are not passed on, because they could choose code to run."""
_VISION = "vision_model."


def loading_image_encoder(model: Model, base: OnDeviceModel) -> Generator[Ready, None, nn.Module]:
    """Read an image encoder onto the device of a model. Raises as `loading_network`."""
    config = encoder_config(model)

    def build(tensors: Mapping[str, TensorEntry]) -> nn.Module:
        return built(config, model.id, _encoder, len(tensors))

    return loading_network(model, base, build, find=_sources)


def _sources(files: Sequence[WeightFile], wanted: Mapping[str, Tensor]) -> Sources:
    """The sources of the wanted tensors. A whole SigLIP has the same names in its text encoder, behind another beginning."""
    found: dict[str, Source] = {}
    for file in files:
        for stored, entry in file.tensors.items():
            # transformers 5 builds SiglipVisionModel without the outer level that published files have.
            name = stored if stored in wanted else stored.removeprefix(_VISION)
            if name in wanted:
                found[name] = Source(file, entry)
    return found


def _encoder(config: Mapping[str, Any]) -> nn.Module:
    chosen = {name: config[name] for name in _OPTIONS if name in config}
    if is_siglip(config):
        # IP-Adapters read hidden states, which the head follows.
        return SiglipVisionModel(SiglipVisionConfig(**chosen, vision_use_head=False))
    return CLIPVisionModelWithProjection(CLIPVisionConfig(**chosen))
