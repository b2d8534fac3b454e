"""Which stored elements make each tensor of a module, where a single file names and joins them otherwise than diffusers.

The conversion is diffusers' own (`diffusers.loaders.single_file_utils`), run on `meta`: the view that it returns shows what
it does with a tensor, so that no weight is read for it and none is copied.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from diffusers.loaders import single_file_utils as theirs
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from domains.model.families import FAMILIES
from domains.model.safetensors_header import TensorEntry

Checkpoint = dict[str, Tensor]
Convert = Callable[[Checkpoint, Any], Mapping[str, Tensor | None]]
"""Takes the tensors of a component and its empty module; returns them by their names there. None: the file lacks it."""
_theirs: Any = theirs  # untyped

_UNET_PREFIX = "model.diffusion_model."


class Origin(NamedTuple):
    """Where a tensor of a module comes from."""

    stored: str
    """Name in the file."""
    shape: tuple[int, ...]
    pieces: Sequence[Tensor]
    """Views of the stored tensor, one below the other."""


def inner(family: str, component: str, tensors: Mapping[str, TensorEntry]) -> Mapping[str, TensorEntry]:
    """A component's tensors in a file, without its prefix; all of the file, if none has the prefix."""
    part = FAMILIES[family].part(component)
    for start in part.prefixes if part else ():
        if found := {name[len(start) :]: entry for name, entry in tensors.items() if name.startswith(start)}:
            return found
    return tensors


def origins(family: str, component: str, module: nn.Module, tensors: Mapping[str, TensorEntry]) -> Mapping[str, Origin]:
    """The origins of the module's tensors, by name. Raises what diffusers raises for a file that it cannot convert."""
    convert = _CONVERT.get((family, component), _CONVERT.get(("", component)))
    if convert is None:
        return {}
    part = FAMILIES[family].part(component)
    starts = part.prefixes if part else ()
    own = {name: entry for name, entry in tensors.items() if name.startswith(starts)} or tensors
    given = {name: torch.empty(entry.shape, dtype=torch.uint8, device="meta") for name, entry in own.items()}
    names = {_storage(tensor): name for name, tensor in given.items()}
    with _Views():
        made = convert(given, module)
    return {
        name: Origin(names[_storage(pieces[0])], tuple(tensor.shape), pieces)
        for name, tensor in made.items()
        if tensor is not None and (pieces := _pieces_of(tensor)) and _storage(pieces[0]) in names
    }


def _storage(tensor: Tensor) -> int:
    return tensor.untyped_storage()._cdata  # pyright: ignore[reportPrivateUsage]


class _Views(TorchFunctionMode):
    """Replaces operations that copy a tensor: they return a view of it, or note which tensors they join."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func in (torch.clone, Tensor.clone, Tensor.detach, Tensor.contiguous):
            return args[0]
        if func is torch.cat:
            pieces = [piece for tensor in args[0] for piece in _pieces_of(tensor)]
            if len(pieces) == 1:
                return pieces[0]
            joined = func(*args, **(kwargs or {}))
            joined.pieces = pieces
            return joined
        if func is torch.split:
            args = (args[0], _fitted(args[1], args[0].shape[0]), *args[2:])
        return func(*args, **(kwargs or {}))


def _fitted(sizes: Any, rows: int) -> Any:
    """Sizes of a split that diffusers knows for the published width alone, in the same ratio for another width."""
    total = sum(sizes) if isinstance(sizes, tuple) else rows
    return [size * rows // total for size in sizes] if total != rows else sizes


def _pieces_of(tensor: Tensor) -> list[Tensor]:
    return getattr(tensor, "pieces", None) or [tensor]


def _unet(checkpoint: Checkpoint, module: Any) -> Mapping[str, Tensor | None]:
    prefixed = {
        name if name.startswith(_UNET_PREFIX) else _UNET_PREFIX + name.removeprefix("diffusion_model."): tensor
        for name, tensor in checkpoint.items()
    }
    return _theirs.convert_ldm_unet_checkpoint(prefixed, dict(module.config))


def _vae(checkpoint: Checkpoint, module: Any) -> Mapping[str, Tensor | None]:
    return _theirs.convert_ldm_vae_checkpoint(checkpoint, dict(module.config))


def _open_clip(prefix: str) -> Convert:
    return lambda checkpoint, module: _theirs.convert_open_clip_checkpoint(module, checkpoint, prefix=prefix)


def _clip(checkpoint: Checkpoint, module: Any) -> Mapping[str, Tensor | None]:
    return _theirs.convert_ldm_clip_checkpoint(checkpoint)


_CONVERT: Mapping[tuple[str, str], Convert] = {
    ("", "unet"): _unet,
    ("", "vae"): _vae,
    ("sd1", "text_encoder"): _clip,
    ("sd2", "text_encoder"): _open_clip("cond_stage_model.model."),
    ("sdxl", "text_encoder"): _clip,
    ("sdxl", "text_encoder_2"): _open_clip("conditioner.embedders.1.model."),
    ("sd3", "transformer"): lambda given, module: _theirs.convert_sd3_transformer_checkpoint_to_diffusers(given),
    ("flux1", "transformer"): lambda given, module: _theirs.convert_flux_transformer_checkpoint_to_diffusers(given),
}
"""By family and component; an empty family: any. What is not here has diffusers' names behind its prefix."""
