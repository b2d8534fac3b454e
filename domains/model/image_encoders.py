"""Image encoders of IP-Adapters: which one an adapter reads its pictures with, and their configs. Opens headers and configs
alone."""

import math
import os
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

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
_OF_EMBEDDING = ("image_proj.proj.weight",)
_OF_PATCHES = ("image_proj.proj_in.weight", "image_proj.proj.0.weight")
"""Tensors whose second side is the width of what an adapter reads."""


_HEADS = {768: 12, 1024: 16, 1280: 16, 1664: 16}
"""Attention heads of the published encoders (ViT-B, L, H, bigG) by their width, which their tensors do not tell."""
_OF_OPENAI = (768, 512), (1024, 768)
"""(width, width of the embedding) of those whose activation is `quick_gelu`; the others' is `gelu`."""


class Need(msgspec.Struct, frozen=True, kw_only=True):
    """What an IP-Adapter reads."""

    width: int
    patches: bool
    """Whether it reads the encoder's hidden states; else the picture's embedding."""

    @property
    def told(self) -> str:
        """The need in words."""
        size = f"hidden states of {self.width}" if self.patches else f"embeddings of {self.width}"
        return f"a CLIP image encoder with {size} values"


class Encoder(msgspec.Struct, frozen=True, kw_only=True):
    """An image encoder that fits."""

    model: Model
    edge_px: int
    """Edge of the square pictures that it reads."""


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
            return Encoder(model=hashed(model), edge_px=edge)
    return need


def need_of(adapter: Model) -> Need | None:
    """What an IP-Adapter reads. None: its tensors do not say it. Raises MODEL_CORRUPT."""
    shapes = {one.name: one.shape for one in read_header(Path(adapter.files[0].real)).tensors}
    for patches, names in ((False, _OF_EMBEDDING), (True, _OF_PATCHES)):
        for name in names:
            if len(shape := shapes.get(name, ())) == 2:
                return Need(width=shape[1], patches=patches)
    return None


def encoder_config(model: Model) -> dict[str, Any]:
    """The config of an image encoder: of its config.json, or of its tensors, if it is a published one in a file of its own.

    Raises COMPONENT_MISSING, MODEL_CORRUPT.
    """
    if any(file.path == _CONFIG for file in model.files):
        with open_judged(model, _CONFIG) as file:
            return read_object(file, _CONFIG, component=model.id, file=_CONFIG)
    shapes = {one.name: one.shape for one in read_header(Path(model.files[0].real)).tensors}
    if (found := _of_tensors(shapes)) is not None:
        return found
    message = (
        f"image encoder {model.id} has no config.json, and its tensors are those of no published one; add the file"
    )
    raise FailedPrecondition(message, ErrorReason.COMPONENT_MISSING, model_id=model.id, file=_CONFIG)


def _of_tensors(shapes: Mapping[str, tuple[int, ...]]) -> dict[str, Any] | None:
    """The config of a published encoder with such tensors. None: no published encoder has them."""
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
    fits = config.get("hidden_size" if need.patches else "projection_dim") == need.width
    return edge if fits and isinstance(edge, int) and 0 < edge <= _MOST_EDGE_PX else None


def _together(model: Model, other: Model) -> int:
    """Number of folders that two models have in common."""
    parts = [Path(os.path.dirname(one.files[0].real)).parts for one in (model, other)]
    return sum(one == two for one, two in zip(*parts, strict=False))
