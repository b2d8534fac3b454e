"""Image encoders of IP-Adapters: which one an adapter reads its pictures with, and their configs. Opens headers and configs
alone."""

import math
import os
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, cast

import msgspec

from domains.errors import DeviceOpsError, ErrorReason, FailedPrecondition
from domains.model.json_file import read_object
from domains.model.kind import ModelKind
from domains.model.model import Model, ModelState
from domains.model.safetensors_header import read_header
from domains.model.weight_file import open_judged

_CONFIG = "config.json"
_LAYERS = "vision_model.encoder.layers."
_EDGE_PX = 224
"""Edge for a config that names none: CLIP's own."""
_MOST_EDGE_PX = 4096
_OF_EMBEDDING = ("image_proj.proj.weight", "ip_adapter_proj_model.proj.weight")
_OF_PATCHES = ("image_proj.proj_in.weight", "image_proj.proj.0.weight")
"""Tensors whose second side is the width of what an adapter reads."""
_OF_SIGLIP = "image_proj.time_embedding.linear_1.weight"
"""A tensor of the adapters that read with a SigLIP: those of SD3."""

_HEADS = {768: 12, 1024: 16, 1280: 16, 1664: 16}
"""Attention heads of the published encoders (ViT-B, L, H, bigG) by their width, which their tensors do not tell."""
_OF_OPENAI = (768, 512), (1024, 768)
"""(width, width of the embedding) of those whose activation is `quick_gelu`; the others' is `gelu`."""
_SIGLIP = "siglip"
"""The beginning of `model_type` in the configs of SigLIPs."""
_SIGLIPS = {(768, 196): (12, 224), (1024, 256): (16, 256), (1152, 256): (16, 224), (1152, 729): (16, 384)}
"""(heads, edge of the pictures) of the published SigLIPs by (width, patches): their tensors do not tell."""


class Need(msgspec.Struct, frozen=True, kw_only=True):
    """What an IP-Adapter reads."""

    width: int
    patches: bool
    """Whether it reads the encoder's hidden states; else the picture's embedding."""
    siglip: bool = False
    """Whether it reads with the vision encoder of a SigLIP; else with that of a CLIP."""

    @property
    def told(self) -> str:
        """The need in words."""
        size = f"hidden states of {self.width}" if self.patches else f"embeddings of {self.width}"
        return f"a {'SigLIP' if self.siglip else 'CLIP'} image encoder with {size} values"


class Encoder(msgspec.Struct, frozen=True, kw_only=True):
    """An image encoder that fits."""

    model: Model
    edge_px: int
    """Edge of the square pictures that it reads."""
    cut: bool = True
    """Whether pictures are cut to a square, as for CLIP; else they are stretched to one, as for SigLIP."""


def encoder_for(adapter: Model, known: Iterable[Model], hashed: Callable[[Model], Model]) -> Encoder | Need | None:
    """The encoder that fits and lies nearest to the adapter, hashed; what is needed where none does. None: the adapter's
    file does not say what it reads, or cannot be read."""
    try:
        need = need_of(adapter)
    except (DeviceOpsError, OSError):
        return None
    if need is None:
        return None
    able = [one for one in known if one.kind is ModelKind.IMAGE_ENCODER and one.state is ModelState.AVAILABLE]
    for model in sorted(able, key=lambda one: (-_together(one, adapter), one.id)):
        if (edge := _edge_if_fits(model, need)) is not None:
            return Encoder(model=hashed(model), edge_px=edge, cut=not need.siglip)
    return need


def need_of(adapter: Model) -> Need | None:
    """What an IP-Adapter reads. None: its tensors do not say it. Raises MODEL_CORRUPT."""
    shapes = {one.name: one.shape for one in read_header(Path(adapter.files[0].real)).tensors}
    for patches, names in ((False, _OF_EMBEDDING), (True, _OF_PATCHES)):
        for name in names:
            if len(shape := shapes.get(name, ())) == 2:
                return Need(width=shape[1], patches=patches, siglip=_OF_SIGLIP in shapes)
    return None


def encoder_config(model: Model) -> dict[str, Any]:
    """The config of an image encoder: of its config.json, or of its tensors, if it is a published one in a file of its own.

    Raises COMPONENT_MISSING, MODEL_CORRUPT.
    """
    if any(file.path == _CONFIG for file in model.files):
        with open_judged(model, _CONFIG) as file:
            return _of_vision(read_object(file, _CONFIG, component=model.id, file=_CONFIG))
    shapes = {one.name: one.shape for one in read_header(Path(model.files[0].real)).tensors}
    if (found := _of_tensors(shapes)) is not None:
        return found
    message = (
        f"image encoder {model.id} has no config.json, and its tensors are those of no published one; add the file"
    )
    raise FailedPrecondition(message, ErrorReason.COMPONENT_MISSING, model_id=model.id, file=_CONFIG)


def is_siglip(config: Mapping[str, Any]) -> bool:
    """Whether the config of an image encoder is a SigLIP's; else it is a CLIP's."""
    return str(config.get("model_type", "")).startswith(_SIGLIP)


def _of_vision(config: Mapping[str, Any]) -> dict[str, Any]:
    """The config of the vision encoder in that of a whole CLIP or SigLIP, which has a text encoder, too; else as it is."""
    vision = config.get("vision_config")
    if not isinstance(vision, dict):
        return dict(config)
    own = cast(dict[str, Any], vision)
    whole = {name: config[name] for name in ("model_type", "projection_dim") if name in config}
    return {**whole, **own}


def _of_tensors(shapes: Mapping[str, tuple[int, ...]]) -> dict[str, Any] | None:
    """The config of a published encoder with such tensors. None: no published encoder has them."""
    return _of_clip(shapes) if "vision_model.embeddings.class_embedding" in shapes else _of_siglip(shapes)


def _of_siglip(shapes: Mapping[str, tuple[int, ...]]) -> dict[str, Any] | None:
    # The current library saves them without the outer level that published files have.
    shapes = {name.removeprefix("vision_model."): shape for name, shape in shapes.items()}
    try:
        width, _, patch, _ = shapes["embeddings.patch_embedding.weight"]
        heads, edge = _SIGLIPS[width, shapes["embeddings.position_embedding.weight"][0]]
        inner = shapes["encoder.layers.0.mlp.fc1.weight"][0]
    except (KeyError, ValueError, IndexError):
        return None
    return {
        "model_type": "siglip_vision_model",
        "hidden_size": width,
        "intermediate_size": inner,
        "num_hidden_layers": len({name.split(".")[2] for name in shapes if name.startswith("encoder.layers.")}),
        "num_attention_heads": heads,
        "patch_size": patch,
        "image_size": edge,
    }


def _of_clip(shapes: Mapping[str, tuple[int, ...]]) -> dict[str, Any] | None:
    try:
        width, _, patch, _ = shapes["vision_model.embeddings.patch_embedding.weight"]
        patches = shapes["vision_model.embeddings.position_embedding.weight"][0] - 1
        embedding = shapes["visual_projection.weight"][0]
        inner = shapes[f"{_LAYERS}0.mlp.fc1.weight"][0]
        heads = _HEADS[width]
    except (KeyError, ValueError, IndexError):
        return None
    return {
        "hidden_size": width,
        "intermediate_size": inner,
        "projection_dim": embedding,
        "num_hidden_layers": len({name.split(".")[3] for name in shapes if name.startswith(_LAYERS)}),
        "num_attention_heads": heads,
        "patch_size": patch,
        "image_size": math.isqrt(patches) * patch,
        "hidden_act": "quick_gelu" if (width, embedding) in _OF_OPENAI else "gelu",
    }


def _edge_if_fits(model: Model, need: Need) -> int | None:
    """The edge of the pictures that an encoder reads. None: it does not fit, or does not say."""
    try:
        config = encoder_config(model)
    except (DeviceOpsError, OSError):
        return None
    edge = config.get("image_size", _EDGE_PX)
    same = is_siglip(config) == need.siglip
    fits = same and config.get("hidden_size" if need.patches else "projection_dim") == need.width
    return edge if fits and isinstance(edge, int) and 0 < edge <= _MOST_EDGE_PX else None


def _together(model: Model, other: Model) -> int:
    """Number of folders that two models have in common."""
    parts = [Path(os.path.dirname(one.files[0].real)).parts for one in (model, other)]
    return sum(one == two for one, two in zip(*parts, strict=False))
