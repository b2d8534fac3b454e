"""Brings the tensors of a LoRA for a transformer under diffusers' names, by diffusers' own conversions.

Other formats than diffusers' have other matrices there (one for query, key and value), so tensors are converted, not names.
"""

from collections.abc import Mapping
from typing import Any

from diffusers.loaders.lora_pipeline import (
    AuraFlowLoraLoaderMixin,
    FluxLoraLoaderMixin,
    SD3LoraLoaderMixin,
    ZImageLoraLoaderMixin,
)
from torch import Tensor

from domains.errors import excerpt

_LOADERS: Mapping[str, Any] = {
    "sd3": SD3LoraLoaderMixin,
    "flux1": FluxLoraLoaderMixin,
    "chroma": FluxLoraLoaderMixin,
    "auraflow": AuraFlowLoraLoaderMixin,
    "z_image": ZImageLoraLoaderMixin,
}
"""By family."""
_OWN = ("transformer.", "text_encoder.", "text_encoder_2.", "text_encoder_3.")


class NotConverted(Exception):
    """Tensors that diffusers does not convert."""

    def __init__(self, names: list[str], why: str) -> None:
        super().__init__(why)
        self.names = names


def is_own(name: str) -> bool:
    """Whether diffusers' name of a layer is in this name already."""
    return name.startswith(_OWN) and ".processor." not in name


def converted(tensors: Mapping[str, Tensor], family: str) -> Mapping[str, Tensor]:
    """The tensors under diffusers' names. Raises NotConverted."""
    if all(map(is_own, tensors)):
        return tensors
    left = dict(tensors)
    try:
        found = _LOADERS[family].lora_state_dict(
            left, **({"return_alphas": True} if family in ("flux1", "chroma") else {})
        )
    except (ValueError, KeyError, IndexError, AttributeError, RuntimeError) as error:
        raise NotConverted(list(tensors), f"diffusers cannot convert their names: {excerpt(error)}") from error
    found, alphas = found if isinstance(found, tuple) else (found, None)
    # What diffusers converts it takes out of the dictionary, or it leaves the dictionary as it is.
    if left and len(left) < len(tensors) and left is not found:
        raise NotConverted(list(left), "diffusers does not convert their names")
    return {**found, **(alphas or {})}
