"""Models that exist for requests alone: a model of the catalogue with some components of others, or without some.

Its id says what it is: `base+vae=other+text_encoder_3=` has the VAE of `other` and no third text encoder. No model of the
catalogue has such an id, since `+` and `=` are not allowed there.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import msgspec
from msgspec.structs import replace

from domains.errors import ErrorReason, FailedPrecondition, InvalidRequest, Violation, excerpt
from domains.model.composition import Recipe, composed
from domains.model.detected_model import blank_model
from domains.model.families import FAMILIES, Family, Part
from domains.model.kind import ModelKind
from domains.model.model import Model, ModelLayout

_FROM, _IS = "+", "="

Sources = Mapping[str, str]
"""Component → the id of the model that it comes from. Empty: it is left out."""


class Assembly(msgspec.Struct, frozen=True, kw_only=True):
    """What a model of a request is made of."""

    base_id: str
    sources: tuple[tuple[str, str], ...]
    """Component and the id of the model that it comes from, in order of the component. An empty id: it is left out."""

    @property
    def id(self) -> str:
        """The id of the model."""
        return "".join((self.base_id, *(f"{_FROM}{name}{_IS}{source}" for name, source in self.sources)))

    @property
    def model_ids(self) -> tuple[str, ...]:
        """The models that it takes components from, the base first."""
        return (self.base_id, *(source for _, source in self.sources if source))


def assembly_of(model_id: str) -> Assembly | None:
    """The assembly that an id names. None: it is the id of a model of the catalogue."""
    base_id, *parts = model_id.split(_FROM)
    sources = [part.partition(_IS) for part in parts]
    if not base_id or not parts or not all(name and equals for name, equals, _ in sources):
        return None
    return Assembly(base_id=base_id, sources=tuple((name, source) for name, _, source in sources))


def assembled_id(base_id: str, sources: Sources) -> str:
    """The id of a model with these components."""
    return Assembly(base_id=base_id, sources=tuple(sorted(sources.items()))).id if sources else base_id


def assembled(assembly: Assembly, get: Callable[[str], Model]) -> Model:
    """The model. `get` raises MODEL_NOT_FOUND.

    Raises INVALID_FIELD for a component that the family lacks, COMPONENT_MISSING for one that is needed or that its source
    lacks, MODEL_INCOMPATIBLE for one that does not fit, and the fault of a source that cannot be used.
    """
    base = get(assembly.base_id)
    family = FAMILIES[base.family]
    if wrong := [*unknown_components(family, [name for name, _ in assembly.sources])]:
        # The order of the request is not known here.
        raise InvalidRequest([replace(one, field="components") for one in wrong])
    _check_needed(family, assembly)
    for name, source in assembly.sources:
        if source and (part := family.part(name)) is not None:
            _check_source(get(source), part, base)
    recipe = Recipe(
        base_id=base.base_id if base.layout is ModelLayout.PARTS else base.id,
        taken=tuple({**dict(base.taken), **{name: source for name, source in assembly.sources if source}}.items()),
        omitted=tuple(name for name, source in assembly.sources if not source),
    )
    blank = replace(blank_model(Path(), base.display_name, assembly.id, ModelLayout.PARTS), folder="")
    return composed(blank, recipe, get)


def unknown_components(family: Family, names: Sequence[str]) -> Iterator[Violation]:
    """Violations for components that the family lacks. `names`: those of a request, in its order."""
    known = ", ".join(part.id for part in family.parts if part.has_weights)
    for place, name in enumerate(names):
        part = family.part(name)
        if part is None or not part.has_weights:
            message = f"models of the family {family.id} have no component {excerpt(name)!r}; they have {known}"
            yield Violation(field=f"generation.components[{place}].component_id", message=message, allowed=known)


def _check_needed(family: Family, assembly: Assembly) -> None:
    """Raise COMPONENT_MISSING for a component that is left out and needed."""
    parts = {part.id: part for part in family.parts if part.has_weights}
    for name, source in assembly.sources:
        if not source and not parts[name].optional:
            optional = ", ".join(part.id for part in parts.values() if part.optional) or "none"
            message = f"models of the family {family.id} do not work without {name}; optional there: {optional}"
            raise FailedPrecondition(message, ErrorReason.COMPONENT_MISSING, model_id=assembly.base_id, component=name)


def _check_source(source: Model, part: Part, base: Model) -> None:
    """Raise MODEL_INCOMPATIBLE for a component that is made for another family."""
    fits = _families_of(source, part)
    same = part.kind is not ModelKind.DENOISER or not source.variant or source.variant == base.variant
    if same and (not fits or base.family in fits):
        return
    has = f"the {part.id} of model {source.id} is of {', '.join(fits)}{source.variant and f' ({source.variant})'}"
    message = f"{has}; model {base.id} is of {base.family}{base.variant and f' ({base.variant})'}: name one that fits"
    facts = {"model_id": source.id, "component": part.id, "family": base.family}
    raise FailedPrecondition(message, ErrorReason.MODEL_INCOMPATIBLE, **facts)


def _families_of(source: Model, part: Part) -> tuple[str, ...]:
    """Families that a component of a model fits by its kind. Empty: its configs decide."""
    if source.kind not in (ModelKind.CHECKPOINT, ModelKind.REFINER):
        return source.compatible_families
    if part.kind is ModelKind.DENOISER:
        return (source.family,)
    if part.kind is not ModelKind.VAE:
        return ()
    # VAEs of one class with the same number of channels cannot be told apart.
    own = FAMILIES[source.family]
    return tuple(one.id for one in FAMILIES.values() if _vae_of(one) == _vae_of(own))


def _vae_of(family: Family) -> tuple[object, ...]:
    return family.latent_channels, *(part.classes for part in family.parts if part.kind is ModelKind.VAE)
