"""Which tensors the new files of a converted model have, and where their bytes come from."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import PurePosixPath

from domains.model.conversion import ConversionOrder
from domains.model.families import FAMILIES
from domains.model.model import Component, Model, ModelLayout
from domains.model.on_device.rewrite import LIBRARY_FILE, NewFile, NewTensor, Stored, stored_as
from domains.model.weight_file import WeightFile

Kept = Callable[[str], bool]
"""Whether the tensor of this name keeps its precision."""
WEIGHTS = ".safetensors"
_STALE = "hash"
"""A metadata key that contains this holds a hash of the old file."""


def planned(order: ConversionOrder, opened: ExitStack) -> list[NewFile]:
    """The weight files of the result. `opened`: closes the sources.

    Raises COMPONENT_MISSING, MODEL_CORRUPT, MODEL_INCOMPATIBLE, ILLEGAL_STATE (a source that has changed since its scan).
    """
    paths = [stamp.path for stamp in order.model.files if stamp.path.endswith(WEIGHTS)]
    files = {path: opened.enter_context(WeightFile(order.model, path)) for path in dict.fromkeys(paths)}
    for file in files.values():
        for _ in file.checked():
            pass
    if order.layout is not ModelLayout.DIFFUSERS:
        name = "" if order.layout is ModelLayout.FILE else _name_after(paths)
        return [_as_it_is(order, name, list(files.values()), _kept_names(order))]
    return [_component(order, part, files) for part in order.model.components if _own(part)]


def _own(part: Component) -> list[str]:
    return [path for path in part.files if path.endswith(WEIGHTS)]


def _name_after(paths: Sequence[str]) -> str:
    """The name of a component's only file, as its libraries look for it."""
    base = PurePosixPath(paths[0]).name
    return (LIBRARY_FILE if base.startswith(LIBRARY_FILE) else "model") + WEIGHTS


def _component(order: ConversionOrder, part: Component, files: Mapping[str, WeightFile]) -> NewFile:
    own = [files[path] for path in _own(part)]
    keeps = part.id in order.keep
    if part.layout is not ModelLayout.FILE:
        return _as_it_is(order, f"{part.id}/{_name_after(_own(part))}", own, lambda name: keeps)
    # Diffusers and transformers take seconds to import, and only this needs them.
    from domains.model.on_device.conversion_modules import tensors_of_module

    base, tensors = tensors_of_module(order.model, part.id, own, "" if keeps else order.precision)
    return NewFile(path=f"{part.id}/{base}{WEIGHTS}", tensors=tensors, metadata={"format": "pt"})


def _as_it_is(order: ConversionOrder, path: str, files: Sequence[WeightFile], kept: Kept) -> NewFile:
    """All tensors of some files under their own names."""
    tensors = [
        NewTensor(
            name=entry.name,
            shape=entry.shape,
            dtype=stored_as(entry, "" if kept(entry.name) else order.precision),
            source=Stored(file, entry),
        )
        for file in files
        for entry in file.tensors.values()
    ]
    told = {key: value for file in files for key, value in file.metadata.items() if _STALE not in key}
    return NewFile(path=path, tensors=tensors, metadata=told)


def _kept_names(order: ConversionOrder) -> Kept:
    """Whether the tensor of this name keeps its precision, in one file with all components."""
    if {part.id for part in order.model.components} <= set(order.keep):
        return lambda name: True
    starts = tuple(_prefixes(order.model, order.keep))
    return lambda name: name.startswith(starts)


def _prefixes(model: Model, components: Iterable[str]) -> Iterable[str]:
    family = FAMILIES.get(model.family)
    parts = (family.part(name) for name in components) if family else ()
    return (start for part in parts if part for start in part.prefixes)
