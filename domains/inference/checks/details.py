"""Finds the faults of passes over what a detector finds, and makes their choices."""

from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

from msgspec.structs import replace

from domains.errors import ErrorReason, InvalidRequest, Violation, excerpt
from domains.inference import limits
from domains.inference.checks.bounds import within
from domains.inference.checks.named_models import check_named
from domains.inference.details import (
    DEFAULT_BLUR_PX,
    DEFAULT_DILATION_PX,
    DEFAULT_PADDING_PX,
    DEFAULT_STRENGTH,
    DetailPass,
    ResolvedDetail,
)
from domains.inference.detections import DEFAULT_CONFIDENCE, FACE, LABELS, MOST_FINDS, Wanted
from domains.inference.generation import Generation, ResolvedGeneration
from domains.model.families import FAMILIES
from domains.model.kind import ModelKind
from domains.model.model import Model

_Number = TypeVar("_Number", int, float)

_FIELD = "generation.detail_passes"
_NUMBERS = {
    "detector.min_confidence_ratio": "min_confidence",
    "detector.min_area_ratio": "min_area",
    "detector.max_area_ratio": "max_area",
    **{name: name for name in ("strength", "steps", "dilation_px", "blur_px", "padding_px")},
}
"""By field: the attribute that has its value."""
_EXCLUDES = {
    "seamless_x": "makes parts whose edges do not fit together at the other side",
    "seamless_y": "makes parts whose edges do not fit together at the other side",
    "references": "makes parts by the prompt alone, without the pictures that the model sees",
}
"""What cannot be together with a detail pass, and why."""
_NAMED = {"references": "reference_images"}


def path_of(place: int) -> str:
    """The field of a pass."""
    return f"{_FIELD}[{place}]"


def detail_violations(asked: Generation) -> Iterator[Violation]:
    """Fields that are wrong by themselves."""
    if len(asked.detail_passes) > limits.DETAIL_PASSES:
        text = f"has {len(asked.detail_passes)} passes; a generation has at most {limits.DETAIL_PASSES}"
        yield Violation(field=_FIELD, message=text, allowed=f"0..{limits.DETAIL_PASSES} entries")
    for place, one in enumerate(asked.detail_passes):
        yield from _alone(one, path_of(place))


def _alone(one: DetailPass, path: str) -> Iterator[Violation]:
    outside = [
        wrong
        for name, attribute in _NUMBERS.items()
        for wrong in within(f"detail_passes.{name}", getattr(one, attribute), f"{path}.{name}")
    ]
    yield from outside
    yield from within("detail_passes.detector.max_count", one.max_count or None, f"{path}.detector.max_count")
    yield from _edge(one.edge_px, f"{path}.edge_px")
    if one.label and one.label not in LABELS:
        known = ", ".join(LABELS)
        text = f"no detector of this server finds {excerpt(one.label)!r}; known: {known}"
        yield Violation(field=f"{path}.detector.label", message=text, allowed=known)
    least, most = one.min_area or 0.0, 1.0 if one.max_area is None else one.max_area
    if least > most and not outside:
        text = f"{most:g} is less than the smallest share, {least:g}, so that nothing counts"
        yield Violation(field=f"{path}.detector.max_area_ratio", message=text, allowed=f"{least:g}..1")
    for name in ("prompt", "negative_prompt"):
        size = len(getattr(one, name).encode())
        if size > limits.PROMPT_BYTES:
            text = f"has {size} bytes; a prompt has at most {limits.PROMPT_BYTES}"
            yield Violation(field=f"{path}.{name}", message=text, allowed=f"0..{limits.PROMPT_BYTES} bytes")


def _edge(edge: int, field: str) -> Iterator[Violation]:
    outside = list(within("detail_passes.edge_px", edge or None, field))
    yield from outside
    multiple, (low, high) = limits.EDGE_MULTIPLE_PX, limits.DETAIL_EDGE_PX
    if not outside and edge % multiple:
        text = f"{edge} is no multiple of {multiple}; {edge - edge % multiple} is"
        yield Violation(field=field, message=text, allowed=f"{low}..{high}, a multiple of {multiple}")


def detail_exclusions(asked: Generation) -> Iterator[Violation]:
    """Fields that a detail pass excludes."""
    if not asked.detail_passes:
        return
    for name, why in _EXCLUDES.items():
        if getattr(asked, name):
            text = f"{why}; leave `{_NAMED.get(name, name)}` or the detail passes out"
            yield Violation(field=_FIELD, message=text)
    for place, prompt in enumerate(asked.image_prompts):
        if prompt.region is not None:
            text = (
                "is a part of the whole picture, which a detail pass does not make; leave the region out, or the detail"
            )
            yield Violation(field=f"generation.image_prompts[{place}].region", message=f"{text} passes")
    if asked.sampling.own.steps is not None:
        for place, one in enumerate(asked.detail_passes):
            if one.steps is not None:
                text = "the walk's own noise levels say how many steps there are; leave one of the two out"
                yield Violation(field=f"{path_of(place)}.steps", message=text)
    if asked.sampling.part.last_step is not None:
        text = "leaves noise in the picture that a detector sees; leave `last_step` or the detail passes out"
        yield Violation(field=_FIELD, message=text)


def resolved_details(
    asked: Generation,
    resolved: ResolvedGeneration,
    model: Model,
    detectors: Sequence[Model],
    steps_of: Callable[[int], int],
) -> tuple[ResolvedDetail, ...]:
    """The passes with every choice made. `resolved`: the generation without them. `detectors`: of each, with its hash.
    `steps_of`: checks a number of steps. Raises the faults of detectors and steps, and UNSUPPORTED_COMBINATION for an edge
    that the family does not make."""
    found: list[ResolvedDetail] = []
    for place, (one, detector) in enumerate(zip(asked.detail_passes, detectors, strict=True)):
        check_named(detector, ModelKind.DETECTOR, "detector", f"{path_of(place)}.detector_model_id")
        width_px, height_px = _size(one, model, path_of(place))
        found.append(
            ResolvedDetail(
                detector_model_id=detector.id,
                detector_sha256=detector.sha256,
                wanted=_wanted(one),
                prompt=one.prompt,
                negative_prompt=one.negative_prompt,
                strength=_or(one.strength, DEFAULT_STRENGTH),
                steps=resolved.steps if one.steps is None else _steps(one.steps, path_of(place), steps_of),
                dilation_px=_or(one.dilation_px, DEFAULT_DILATION_PX),
                blur_px=_or(one.blur_px, DEFAULT_BLUR_PX),
                padding_px=_or(one.padding_px, DEFAULT_PADDING_PX),
                width_px=width_px,
                height_px=height_px,
            )
        )
    return tuple(found)


def _wanted(one: DetailPass) -> Wanted:
    return Wanted(
        label=one.label or FACE,
        min_confidence=_or(one.min_confidence, DEFAULT_CONFIDENCE),
        min_area=_or(one.min_area, 0.0),
        max_area=_or(one.max_area, 1.0),
        max_count=one.max_count or MOST_FINDS,
    )


def _steps(asked: int, path: str, steps_of: Callable[[int], int]) -> int:
    try:
        return steps_of(asked)
    except InvalidRequest as error:
        told = [replace(one, field=f"{path}.steps") for one in error.violations]
        raise InvalidRequest(told, error.reason, **error.facts) from None


def _size(one: DetailPass, model: Model, path: str) -> tuple[int, int]:
    """(width, height) at which a find is made: the model's native shape, with the edge as its longer one."""
    native = model.native_width_px, model.native_height_px
    multiple = max(limits.EDGE_MULTIPLE_PX, FAMILIES[model.family].alignment_px)
    longest = one.edge_px or max(native)
    # A model that does not say its shape makes squares.
    shape = native if all(native) else (1, 1)
    size = tuple(round(longest * edge / max(shape) / multiple) * multiple for edge in shape)
    low, high = limits.DETAIL_EDGE_PX
    if max(size) == longest and all(limits.EDGE_PX[0] <= edge <= high for edge in size):
        return size[0], size[1]
    if one.edge_px:
        text = f"models of the family {model.family} make edges of multiples of {multiple}; {one.edge_px} is none"
    else:
        text = f"model {model.id} has no native size that a find can be made at; give `edge_px`"
    violation = Violation(field=f"{path}.edge_px", message=text, allowed=f"{low}..{high}, a multiple of {multiple}")
    raise InvalidRequest([violation], ErrorReason.UNSUPPORTED_COMBINATION, model_id=model.id)


def _or(given: _Number | None, default: _Number) -> _Number:
    return default if given is None else given
