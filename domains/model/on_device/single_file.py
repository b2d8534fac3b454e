"""Finds the tensors of a component in a single file, which holds them with others and under names of its own."""

from collections.abc import Mapping, Sequence

import torch
from msgspec.structs import replace
from torch import nn

from domains.errors import ErrorReason, FailedPrecondition
from domains.model.on_device.conversion import Origin, inner, origins
from domains.model.on_device.derived import derives
from domains.model.on_device.weights import Find, Source, Sources, matched
from domains.model.weight_file import WeightFile
from domains.system_errors import wrapped_system_error


def finder(family: str, component: str, module: nn.Module) -> Find:
    """The search for a component's tensors; `module`: empty.

    By the names of diffusers behind the component's prefix, else as diffusers converts them. The search raises
    MODEL_INCOMPATIBLE for a file that diffusers cannot convert.
    """

    def find(files: Sequence[WeightFile], wanted: Mapping[str, torch.Tensor]) -> Sources:
        file = files[0]
        own = {name: Source(file, entry) for name, entry in inner(family, component, file.tensors).items()}
        named = matched(own, wanted)
        if all(name in named or derives(name) for name in wanted):
            return named
        try:
            made = origins(family, component, module, file.tensors)
        except Exception as error:  # diffusers' conversions raise what their dictionaries raise
            if known := wrapped_system_error(error):
                raise known from error
            message = f"diffusers cannot convert the {component} in {file.name}: {type(error).__name__} {error!s:.200}"
            facts = {"component": component, "file": file.name}
            raise FailedPrecondition(message, ErrorReason.MODEL_INCOMPATIBLE, **facts) from error
        return matched({name: _source(file, origin) for name, origin in made.items()}, wanted)

    return find


def _source(file: WeightFile, origin: Origin) -> Source:
    """The bytes of a converted tensor: a range of the stored ones where it is one, else all of them, to be rearranged."""
    entry = file.tensors[origin.stored]
    piece = origin.pieces[0]
    if len(origin.pieces) > 1 or not piece.is_contiguous():
        return Source(file, replace(entry, shape=origin.shape), origin.pieces)
    item = (entry.end - entry.begin) // max(1, entry.elements)
    begin = entry.begin + piece.storage_offset() * item
    return Source(file, replace(entry, shape=origin.shape, begin=begin, end=begin + piece.numel() * item))
