"""Selects the weight files of a component's folder: those of the index, else of one named variant; others are ignored.

Names follow diffusers and transformers: `<base>[.<variant>][-<n>-of-<m>].safetensors`, with an index for shards. The set
without a variant goes before one with a variant; within a variant the index, then the single file, then shards by number.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import msgspec

from domains.errors import DataLoss, ErrorReason, FailedPrecondition, excerpt

_INDEX = re.compile(r"(?P<base>.+?)\.safetensors\.index(?:\.(?P<variant>[^.]+))?\.json")
_WEIGHTS = re.compile(
    r"(?P<base>.+?)(?:\.(?P<variant>[^.]+?))?(?:-(?P<number>\d{5})-of-(?P<count>\d{5}))?(?:\.(?P<late>[^.]+))?\.safetensors"
)
_VARIANTS = ("", "fp32", "bf16", "fp16")
"""Order of preference; other variants follow by name."""


class _Set(msgspec.Struct, frozen=True, kw_only=True):
    """Files that form the weights together."""

    base: str
    variant: str
    kind: int
    """0: an index; 1: a single file; 2: shards that no index lists."""
    files: tuple[str, ...]
    """The files; for an index, the index alone."""
    count: int = 1
    """Expected number of shards."""


def choose(component: str, files: Sequence[str], read_index: Callable[[str], Mapping[str, Any]]) -> tuple[str, ...]:
    """The weight files among the names in a component's folder; empty if it has none.

    Raises COMPONENT_MISSING for a shard that is not there and where nothing says which files count, MODEL_CORRUPT for a
    malformed index, and what `read_index` raises.
    """
    sets = sorted(_sets(files), key=lambda one: _rank(component, one))
    if not sets:
        return ()
    first, *others = sets
    if others and _rank(component, others[0]) == _rank(component, first):
        names = ", ".join(sorted([*first.files, *others[0].files])[:8])
        message = f"component {component} has several sets of weights and no index that says which counts: {names}"
        raise FailedPrecondition(message, ErrorReason.COMPONENT_MISSING, component=component)
    return _listed(component, first.files[0], files, read_index) if first.kind == 0 else _whole(component, first)


def _rank(component: str, one: _Set) -> tuple[int, int, str, int]:
    bases = ["diffusion_pytorch_model", "model"]
    if component.startswith(("text_encoder", "image_encoder", "safety_checker")):
        bases.reverse()
    base = bases.index(one.base) if one.base in bases else len(bases)
    known = one.variant in _VARIANTS
    variant = _VARIANTS.index(one.variant) if known else len(_VARIANTS)
    return base, variant, "" if known else one.variant, one.kind


def _sets(files: Sequence[str]) -> list[_Set]:
    found: list[_Set] = []
    shards: dict[tuple[str, str, int], list[str]] = {}
    for file in files:
        if index := _INDEX.fullmatch(file):
            found.append(_Set(base=index["base"], variant=index["variant"] or "", kind=0, files=(file,)))
        elif (named := _WEIGHTS.fullmatch(file)) and named["number"]:
            variant = named["variant"] or named["late"] or ""
            shards.setdefault((named["base"], variant, int(named["count"])), []).append(file)
        elif named:
            found.append(
                _Set(base=named["base"], variant=named["variant"] or named["late"] or "", kind=1, files=(file,))
            )
    found += [
        _Set(base=base, variant=variant, kind=2, files=tuple(sorted(names)), count=count)
        for (base, variant, count), names in shards.items()
    ]
    return found


def _whole(component: str, one: _Set) -> tuple[str, ...]:
    """The files of a set; raises if a shard is missing."""
    if len(one.files) < one.count:
        there = {int(match["number"]) for file in one.files if (match := _WEIGHTS.fullmatch(file))}
        lacks = next(number for number in range(1, one.count + 1) if number not in there)
        raise _shard_missing(component, f"{lacks:05} of {one.count:05} (beside {one.files[0]})")
    return one.files


def _listed(
    component: str, index: str, files: Sequence[str], read_index: Callable[[str], Mapping[str, Any]]
) -> tuple[str, ...]:
    """The files that an index lists."""
    shards = read_index(index).get("weight_map")
    if not isinstance(shards, dict) or not shards or not all(isinstance(shard, str) for shard in shards.values()):
        message = f"{component}/{index} has no weight_map from tensors to files; replace it"
        raise DataLoss(message, ErrorReason.MODEL_CORRUPT, component=component, file=index)
    names = sorted(set(shards.values()))
    for name in names:
        if name not in files or not name.endswith(".safetensors"):
            raise _shard_missing(component, f"{excerpt(name)} that {index} lists")
    return tuple(names)


def _shard_missing(component: str, which: str) -> FailedPrecondition:
    message = f"component {component} lacks the shard {which}; restore it and scan again"
    return FailedPrecondition(message, ErrorReason.COMPONENT_MISSING, component=component)
