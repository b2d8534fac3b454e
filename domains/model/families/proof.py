"""Tells the family and the variant of a denoiser from the names and shapes of its tensors alone."""

from collections.abc import Sequence

import msgspec

from domains.model.families import FAMILIES
from domains.model.families.family import Family, Variant
from domains.model.families.sign import Layout, Match, Tensors, match


class Proof(msgspec.Struct, frozen=True, kw_only=True):
    """A family that tensors prove."""

    family: str
    variant: str
    """Empty: none that tensors can tell."""
    match: Match


def proofs(tensors: Tensors) -> Sequence[Proof]:
    """Every family whose denoiser the tensors are; more than one means that the families' signs do not suffice."""
    found = (_proof(family, layout, tensors) for family in FAMILIES.values() for layout in family.layouts)
    return [proof for proof in found if proof is not None]


def _proof(family: Family, layout: Layout, tensors: Tensors) -> Proof | None:
    # Nearly all comparisons end here; the others look at every tensor.
    if any(sign.decisive and sign.key not in tensors for sign in layout.signs):
        return None
    tellable = [one for one in family.variants if one.signs or one.absent]
    for variant in (*tellable, None):
        also = variant.signs.get(layout.name, ()) if variant else ()
        found = match(layout, tensors, also)
        if found.proven and not _has_absent(variant, layout, tensors):
            return Proof(family=family.id, variant=variant.name if variant else "", match=found)
    return None


def _has_absent(variant: Variant | None, layout: Layout, tensors: Tensors) -> bool:
    starts = variant.absent.get(layout.name, ()) if variant else ()
    return bool(starts) and any(key.startswith(starts) for key in tensors)
