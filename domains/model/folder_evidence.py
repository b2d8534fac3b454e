"""The evidence for the family of a folder: its components, the denoiser's config, names and shapes of its tensors."""

from collections.abc import Mapping, Sequence
from typing import Any

from domains.model.detect.evidence import MAX_KEYS, Evidence, Source, of_match
from domains.model.families import FAMILIES, Family, Variant
from domains.model.families.sign import match
from domains.model.folder_family import Folder, Weighed, equal


def evidence_of(folder: Folder, weighed: Sequence[Weighed]) -> tuple[Evidence, ...]:
    """The evidence for each family that was weighed, the one that decided first."""
    found: list[Evidence] = []
    for one in weighed:
        family = FAMILIES[one.family]
        found += [
            _components(folder, family, one.proven),
            _config(folder, family, family.variant(one.variant), one.proven),
            _names(folder, family, one.proven),
            *_shapes(folder, family, family.variant(one.variant), one.proven),
        ]
    return tuple(one for one in found if one.expected)


def _components(folder: Folder, family: Family, proven: bool) -> Evidence:
    return Evidence(
        family=family.id,
        kind=family.kind,
        source=Source.MODEL_INDEX,
        expected=len(family.needs),
        matched=tuple(part for part in family.needs if part in folder.components),
        missing=tuple(part for part in family.needs if part not in folder.components),
        decisive=proven,
    )


def _config(folder: Folder, family: Family, variant: Variant | None, proven: bool) -> Evidence:
    name = family.denoiser.id
    config = folder.configs.get(name, {})
    wanted: Mapping[str, Any] = {**family.config, **(variant.config if variant else {})}
    right = {key: equal(config.get(key), value) for key, value in wanted.items()}
    return Evidence(
        family=family.id,
        kind=family.denoiser.kind,
        component=name,
        source=Source.CONFIG,
        expected=len(wanted),
        matched=tuple(f"{key}={config.get(key)!r:.64}" for key in wanted if right[key]),
        missing=tuple(f"{key}={value!r:.64}" for key, value in wanted.items() if not right[key]),
        decisive=proven,
    )


def _names(folder: Folder, family: Family, proven: bool) -> Evidence:
    name = family.denoiser.id
    keys = folder.tensors.get(name, {})
    extra = tuple(key for start in family.config_without for key in keys if key.startswith(start))
    return Evidence(
        family=family.id,
        kind=family.denoiser.kind,
        component=name,
        source=Source.TENSOR_NAMES,
        expected=len(family.config_keys),
        matched=tuple(key for key in family.config_keys if key in keys),
        missing=tuple(key for key in family.config_keys if key not in keys),
        unexpected=extra[:MAX_KEYS],
        decisive=proven,
    )


def _shapes(folder: Folder, family: Family, variant: Variant | None, proven: bool) -> tuple[Evidence, ...]:
    """Shapes as published models have them. Smaller models of a family have others: they support, and do not decide."""
    name = family.denoiser.id
    layout = next((layout for layout in family.layouts if layout.name == "diffusers"), None)
    if not proven or layout is None or name not in folder.tensors:
        return ()
    also = variant.signs.get("diffusers", ()) if variant else ()
    return (of_match(match(layout, folder.tensors[name], also), family.denoiser.kind, family.id, name),)
