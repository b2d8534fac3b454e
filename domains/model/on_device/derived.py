"""Buffers that no file carries: modules compute them from their configs, so an empty module on `meta` has none."""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from domains.errors import ErrorReason, FailedPrecondition


def _positions(owner: Any, name: str) -> Tensor:
    """CLIP's position ids."""
    like = owner._buffers[name]
    return torch.arange(like.shape[-1]).expand(like.shape)


def _of_new(make: Callable[[Any], nn.Module]) -> Callable[[Any, str], Tensor]:
    """The buffer of a new module like its owner."""
    return lambda owner, name: dict(make(owner).named_buffers(recurse=False))[name]


_DERIVED: Mapping[str, Callable[[Any, str], Tensor]] = {
    "position_ids": _positions,
    # Chroma's table of modulations: (outputs, 2 · channels).
    "mod_proj": _of_new(lambda owner: type(owner)(owner.mod_proj.shape[1] // 2, owner.mod_proj.shape[0])),
    "inv_freq": _of_new(lambda owner: type(owner)(owner.config)),
    "original_inv_freq": _of_new(lambda owner: type(owner)(owner.config)),
}
"""By the buffer's name: its value, made on the host."""


_PROJECTION = "text_projection.weight"


def derives(name: str) -> bool:
    """Whether a single file may lack this parameter: the projection of SD3's CLIP-L is the identity there (as in diffusers'
    `create_diffusers_clip_model_from_ldm`)."""
    return name == _PROJECTION


def derived_parameters(module: nn.Module) -> Mapping[str, Tensor]:
    """The values of the parameters that no file gave, by name."""
    own: Any = getattr(module, "text_projection", None)
    if own is None or not own.weight.is_meta:
        return {}
    like = next((one for one in module.parameters() if not one.is_meta), own.weight)
    return {_PROJECTION: torch.eye(*own.weight.shape, dtype=like.dtype)}


def derived_buffers(module: nn.Module, owners: Mapping[str, nn.Module]) -> Mapping[str, Tensor]:
    """The values of all buffers that are still on `meta`; `owners`: the modules by path.

    Raises MODEL_INCOMPATIBLE for one that nothing here computes.
    """
    found: dict[str, Tensor] = {}
    for path, owner in owners.items():
        for name, buffer in owner._buffers.items():  # pyright: ignore[reportPrivateUsage]  # named_buffers takes 5 ms
            if buffer is None or not buffer.is_meta:
                continue
            if name not in _DERIVED:
                message = f"{type(module).__name__} computes its buffer {path}.{name} itself: unknown to this loader"
                raise FailedPrecondition(message, ErrorReason.MODEL_INCOMPATIBLE, buffer=f"{path}.{name}")
            found[f"{path}.{name}" if path else name] = _DERIVED[name](owner, name)
    return found
