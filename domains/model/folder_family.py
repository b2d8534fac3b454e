"""Tells the family of a diffusers folder from its components, the denoiser's config and the names of its tensors.

Names and widths prove nothing (the embedded model has widths of its own); the structure of the denoiser does.
"""

from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from typing import Any

import msgspec

from domains.model.detect.evidence import Evidence
from domains.model.families import COMPUTED, FAMILIES, Family, Variant
from domains.model.families.sign import Tensors

DENOISERS = tuple(dict.fromkeys(family.denoiser.id for family in FAMILIES.values()))
"""Ids of components that some family's denoiser has."""


class Folder(msgspec.Struct, frozen=True, kw_only=True):
    """What a folder shows."""

    components: AbstractSet[str]
    pipeline: str = ""
    """Class that model_index.json names; empty: none."""
    configs: Mapping[str, Mapping[str, Any]]
    """config.json by component; of denoisers at least."""
    tensors: Mapping[str, Tensors]
    """Shapes by tensor name, by component; of denoisers at least."""


class Weighed(msgspec.Struct, frozen=True, kw_only=True):
    """A family that a folder was compared with."""

    family: str
    variant: str
    proven: bool


class Told(msgspec.Struct, frozen=True, kw_only=True):
    """The family of a folder."""

    family: str = ""
    """Empty: no known one."""
    variant: str = ""
    problem: str = ""
    """Why the engine cannot compute it; empty: it can."""
    weighed: tuple[Weighed, ...] = ()
    """The family that it is, or the nearest ones, the nearest first."""
    evidence: tuple[Evidence, ...] = ()


def tell(folder: Folder) -> Told:
    """The family and the variant; if there is none, the reason of the nearest one."""
    every = [(family, variant) for family in FAMILIES.values() for variant in (*family.variants, None)]
    misses = [_misses(folder, family, variant) for family, variant in every]
    ranked = sorted(
        range(len(every)), key=lambda at: (every[at][0].denoiser.id not in folder.components, len(misses[at]))
    )
    family, variant = every[ranked[0]]
    if proven := [every[at] for at in ranked if not misses[at]]:
        family, variant = next((one for one in proven if one[1] is not None), proven[0])
        return Told(
            family=family.id,
            variant=variant.name if variant else "",
            problem=not_computed(family, variant),
            weighed=(_weighed(family, variant, proven=True),),
        )
    nearest = _plainest(folder, [every[at] for at in ranked if len(misses[at]) == len(misses[ranked[0]])])
    return Told(
        problem=f"it is of no known family; nearest is {nearest[0].id}, but {'; '.join(_misses(folder, *nearest))}",
        weighed=(_weighed(*nearest, proven=False),),
    )


def _weighed(family: Family, variant: Variant | None, *, proven: bool) -> Weighed:
    return Weighed(family=family.id, variant=variant.name if variant else "", proven=proven)


def _plainest(folder: Folder, tied: Sequence[tuple[Family, Variant | None]]) -> tuple[Family, Variant | None]:
    """The best of equally near matches: one whose denoiser is in the folder, then a family before its variants."""
    return min(tied, key=lambda one: (one[0].denoiser.id not in folder.components, one[1] is not None))


def not_computed(family: Family, variant: Variant | None) -> str:
    """Why the engine does not compute it. Empty: it does."""
    if family.computed and (variant is None or variant.computed):
        return ""
    what = family.display_name + (f", {variant.name}" if variant else "")
    return f"this server does not compute {what} yet; it computes: {', '.join(COMPUTED)}"


def _misses(folder: Folder, family: Family, variant: Variant | None) -> list[str]:
    missing = [f"component {part} is missing" for part in family.needs if part not in folder.components]
    name = family.denoiser.id
    if name not in folder.components:
        return missing
    config, keys = folder.configs.get(name, {}), folder.tensors.get(name, {})
    wanted = {**family.config, **(variant.config if variant else {})}
    values = [
        f"{name}/config.json has {key}={config.get(key)!r:.64}, not {value!r}"
        for key, value in wanted.items()
        if not equal(config.get(key), value)
    ]
    absent = [f"{name} has no tensor {key}" for key in family.config_keys if key not in keys]
    without = (*family.config_without, *(variant.absent.get("diffusers", ()) if variant else ()))
    extra = [f"{name} has {start}*" for start in without if any(key.startswith(start) for key in keys)]
    return missing + values + absent + extra + _of_pipeline(folder, variant)


def _of_pipeline(folder: Folder, variant: Variant | None) -> list[str]:
    """A variant that no config proves needs the class that names it."""
    if variant is None or variant.config or folder.pipeline in variant.pipelines:
        return []
    return [f"model_index.json names {folder.pipeline or 'no class'!r:.64}, not {' or '.join(variant.pipelines)}"]


def equal(has: object, value: object) -> bool:
    """Whether a config's value is the one that a family's config has."""
    if value is None:
        return not has
    return has in value if isinstance(value, tuple) else has == value
