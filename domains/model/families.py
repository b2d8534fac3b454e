"""Detects the family of a model from its parts. Detection is data: to add a family, add a line.

Names and widths prove nothing (the embedded model has widths of its own); the structure of the denoiser does.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec


class FamilySigns(msgspec.Struct, frozen=True, kw_only=True):
    """Required and forbidden properties of the parts of a family's models."""

    family: str
    denoiser: str
    """Name of the denoising component."""
    needs: Sequence[str]
    """Components that a usable model has."""
    keys: Sequence[str]
    """Tensors that the denoiser must have."""
    without: Sequence[str]
    """Beginnings of tensor names that it must not have."""
    config: Mapping[str, Any]
    """Values that its config.json must have; None: absent, null or false."""


FAMILIES: Sequence[FamilySigns] = (
    FamilySigns(
        family="sd1",
        denoiser="unet",
        needs=("unet", "vae", "text_encoder", "tokenizer", "scheduler"),
        keys=(
            "conv_in.weight",
            "time_embedding.linear_1.weight",
            "mid_block.resnets.0.conv1.weight",
            "conv_out.weight",
        ),
        # SDXL conditions on size and pooled text; SD 1.x upscalers and inpainters on more input channels.
        without=("add_embedding.", "class_embedding."),
        config={
            "_class_name": "UNet2DConditionModel",
            "in_channels": 4,
            "out_channels": 4,
            "addition_embed_type": None,
            "class_embed_type": None,
            # Stable Diffusion 2.x has linear layers there, and another text encoder.
            "use_linear_projection": None,
        },
    ),
)


def detect(components: set[str], config: Mapping[str, Any], keys: set[str]) -> tuple[str, str]:
    """The family; if there is none, the reason (of the nearest one)."""
    reasons = {signs.family: _misses(signs, components, config, keys) for signs in FAMILIES}
    for family, misses in reasons.items():
        if not misses:
            return family, ""
    nearest = min(reasons, key=lambda family: len(reasons[family]))
    return "", f"it is of no known family; nearest is {nearest}, but {'; '.join(reasons[nearest])}"


def _misses(signs: FamilySigns, components: set[str], config: Mapping[str, Any], keys: set[str]) -> list[str]:
    missing = [f"component {part} is missing" for part in signs.needs if part not in components]
    if signs.denoiser not in components:
        return missing
    values = [
        f"{signs.denoiser}/config.json has {name}={config.get(name)!r:.64}, not {value!r}"
        for name, value in signs.config.items()
        if (config.get(name) or None if value is None else config.get(name)) != value
    ]
    absent = [f"{signs.denoiser} has no tensor {key}" for key in signs.keys if key not in keys]
    extra = [f"{signs.denoiser} has {start}*" for start in signs.without if any(k.startswith(start) for k in keys)]
    return missing + values + absent + extra
