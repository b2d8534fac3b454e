"""Finds the faults of the growth of a picture, and makes its choices."""

from collections.abc import Iterator

from domains.errors import ErrorReason, InvalidRequest, Violation
from domains.inference import limits
from domains.inference.checks.bounds import within
from domains.inference.generation import Generation
from domains.inference.masks import DEFAULT_OVERLAP_PX, SIDES, ResolvedOutpaint
from domains.model.families import FAMILIES
from domains.model.model import Model


def outpaint_violations(asked: Generation) -> Iterator[Violation]:
    """Fields of the growth that are wrong by themselves."""
    outpaint, multiple = asked.outpaint, limits.EDGE_MULTIPLE_PX
    if outpaint is None:
        return
    sides = {name: getattr(outpaint, name) for name in SIDES}
    if not any(sides.values()):
        yield Violation(field="generation.outpaint", message="grows no side; give at least one, or leave it out")
    for name, growth in sides.items():
        outside = list(within(f"outpaint.{name}", growth))
        yield from outside
        if not outside and growth % multiple:
            below = growth - growth % multiple
            text = f"{growth} is no multiple of {multiple}; {below} or {below + multiple} is"
            yield Violation(field=f"generation.outpaint.{name}", message=text, allowed=f"a multiple of {multiple}")
    yield from within("outpaint.overlap_px", outpaint.overlap_px)


def outpaint_exclusions(asked: Generation) -> Iterator[Violation]:
    """Fields that the growth needs or excludes."""
    if asked.outpaint is None:
        return
    if asked.init_image is None:
        text = "only a picture grows; give it as `init_image`, or leave the growth out"
        yield Violation(field="generation.outpaint", message=text)
    if asked.mask is not None and asked.mask.zoom_to_mask:
        text = "makes a part of the picture alone, which cannot grow; leave one of the two out"
        yield Violation(field="generation.mask.zoom_to_mask", message=text)


def grown_size(asked: Generation, size: tuple[int, int], model: Model) -> tuple[int, int]:
    """The size after growing. Raises INVALID_FIELD if it is too large, UNSUPPORTED_COMBINATION if the family does not make
    it."""
    outpaint = asked.outpaint
    if outpaint is None:
        return size
    grown = size[0] + outpaint.left_px + outpaint.right_px, size[1] + outpaint.top_px + outpaint.bottom_px
    told, (_, high) = f"the grown picture has {grown[0]}×{grown[1]} pixels", limits.EDGE_PX
    if max(grown) > high:
        text = f"{told}; an edge has at most {high}"
        raise InvalidRequest(
            [Violation(field="generation.outpaint", message=text, allowed=f"at most {high} px an edge")]
        )
    multiple = FAMILIES[model.family].alignment_px
    if any(edge % multiple for edge in grown):
        text = f"{told}, and {model.family} needs multiples of {multiple}"
        violation = Violation(field="generation.outpaint", message=text, allowed=f"a multiple of {multiple} px an edge")
        raise InvalidRequest([violation], ErrorReason.UNSUPPORTED_COMBINATION, model_id=model.id)
    return grown


def resolved_outpaint(asked: Generation) -> ResolvedOutpaint | None:
    """The growth with every choice made."""
    given = asked.outpaint
    if given is None:
        return None
    return ResolvedOutpaint(
        **{name: getattr(given, name) for name in SIDES},
        overlap_px=DEFAULT_OVERLAP_PX if given.overlap_px is None else given.overlap_px,
        fill=given.fill,
    )
