"""Fills an empty module from safetensors files, tensor by tensor."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import nn

from domains.errors import DataLoss, ErrorReason, FailedPrecondition

Placed = Callable[[int], None]
"""Told after each tensor: its bytes in the file. May raise to end the load."""

# Names that older exports use for the VAE's attention, and what diffusers calls them now.
_OLD_ATTENTION = {"query": "to_q", "key": "to_k", "value": "to_v", "proj_attn": "to_out.0"}


def fill(module: nn.Module, component: str, files: list[Path], place: torch.device, dtype: torch.dtype, placed: Placed):
    """Give every parameter and buffer of a `meta` module its values from the files, on `place` as `dtype`.

    Tensors that the module does not know are left in the file. Raises COMPONENT_MISSING (no file), MODEL_CORRUPT (a
    broken file, a tensor missing or of another shape); whatever `placed` raises passes.
    """
    if not files:
        message = f"the model has no safetensors file for {component}; restore it and scan again"
        raise FailedPrecondition(message, ErrorReason.COMPONENT_MISSING, component=component)
    wanted = module.state_dict(keep_vars=True)
    with ExitStack() as opened:
        sources = _sources(opened, component, files, wanted)
        for name in wanted:
            value = _read(component, name, sources, wanted[name].shape)
            size = value.nbytes
            _assign(module, name, _moved(value, place, dtype))
            placed(size)
    _fill_positions(module, place)


def _sources(
    opened: ExitStack, component: str, files: list[Path], wanted: Mapping[str, torch.Tensor]
) -> Mapping[str, tuple[Any, str]]:
    """Wanted name → the open file and the name in it."""
    found: dict[str, tuple[Any, str]] = {}
    for path in files:
        try:
            source = opened.enter_context(safe_open(path, framework="pt", device="cpu"))
        except FileNotFoundError as error:
            message = f"{component}/{path.name} is gone; restore it and scan again"
            raise FailedPrecondition(
                message, ErrorReason.COMPONENT_MISSING, component=component, file=path.name
            ) from error
        except (SafetensorError, OSError) as error:
            message = f"{component}/{path.name} is not a whole safetensors file: {error}; replace it"
            raise DataLoss(message, ErrorReason.MODEL_CORRUPT, component=component, file=path.name) from error
        for stored in source.keys():  # noqa: SIM118 (safe_open is no mapping: it has keys() but cannot be iterated)
            for name in _names(stored):
                if name in wanted:
                    found.setdefault(name, (source, stored))
    return found


def _names(stored: str) -> Iterator[str]:
    """What a stored tensor may be called in the module, likeliest first."""
    yield stored
    # transformers 5 builds CLIPTextModel without the outer level that 4 and every published file have.
    yield stored.removeprefix("text_model.")
    head, _, last = stored.rpartition(".")
    parent, _, old = head.rpartition(".")
    if old in _OLD_ATTENTION:
        yield f"{parent}.{_OLD_ATTENTION[old]}.{last}"


def _read(component: str, name: str, sources: Mapping[str, tuple[Any, str]], shape: torch.Size) -> torch.Tensor:
    if name not in sources:
        message = f"{component} lacks the tensor {name}; replace its files"
        raise DataLoss(message, ErrorReason.MODEL_CORRUPT, component=component, tensor=name)
    source, stored = sources[name]
    try:
        value: torch.Tensor = source.get_tensor(stored)
    except (SafetensorError, RuntimeError, OSError) as error:
        message = f"the tensor {stored} of {component} cannot be read: {error}; replace the file"
        raise DataLoss(message, ErrorReason.MODEL_CORRUPT, component=component, tensor=stored) from error
    if value.shape != shape and value.numel() == shape.numel() and value.squeeze().shape == shape:
        value = value.reshape(shape)  # old VAE files keep attention's linear layers as 1x1 convolutions
    if value.shape != shape:
        has, needs = tuple(value.shape), tuple(shape)
        message = f"the tensor {stored} of {component} has the shape {has}; its config.json asks for {needs}"
        raise DataLoss(
            message, ErrorReason.MODEL_CORRUPT, component=component, tensor=stored, shape=has, expected_shape=needs
        )
    return value


def _moved(value: torch.Tensor, place: torch.device, dtype: torch.dtype) -> torch.Tensor:
    """A copy that no longer leans on the mapped file; convolutions channels last, which they compute fastest in."""
    target = dtype if value.is_floating_point() else value.dtype
    layout = torch.channels_last if value.ndim == 4 else torch.contiguous_format
    return value.to(device=place, dtype=target, copy=True, memory_format=layout)


def _assign(module: nn.Module, name: str, value: torch.Tensor) -> None:
    owner_name, _, leaf = name.rpartition(".")
    owner = module.get_submodule(owner_name)
    is_parameter = isinstance(getattr(owner, leaf), nn.Parameter)
    setattr(owner, leaf, nn.Parameter(value, requires_grad=False) if is_parameter else value)


def _fill_positions(module: nn.Module, place: torch.device) -> None:
    """CLIP's position ids are the one buffer that no file carries."""
    for name, buffer in list(module.named_buffers()):
        if buffer.is_meta and name.endswith("position_ids"):
            _assign(module, name, torch.arange(buffer.shape[-1], device=place).expand(buffer.shape))
