"""Refuses an impossible generation: every violation at once, each with its field and what would be right."""

import math
from collections.abc import Iterator

from domains.errors import InvalidRequest, Violation
from domains.inference import limits
from domains.inference.generation import Generation, Previews
from domains.inference.schedulers import SCHEDULERS

Bounds = tuple[int, int] | tuple[float, float]


def check(asked: Generation) -> None:
    """Raise InvalidRequest with all violations. Needs no model: what depends on one is checked by `resolve`."""
    violations = [*_prompt(asked), *_size(asked), *_sampling(asked), *_output(asked)]
    if violations:
        raise InvalidRequest(violations)


def _prompt(asked: Generation) -> Iterator[Violation]:
    for field, text in (("prompt", asked.prompt), ("negative_prompt", asked.negative_prompt)):
        size = len(text.encode())
        if size > limits.PROMPT_BYTES:
            yield Violation(
                field=f"generation.{field}",
                message=f"has {size} bytes; a prompt has at most {limits.PROMPT_BYTES}",
                allowed=f"0..{limits.PROMPT_BYTES} bytes",
            )


def _size(asked: Generation) -> Iterator[Violation]:
    edges = (("width_px", asked.width_px), ("height_px", asked.height_px))
    for field, edge in edges:
        yield from _within(field, edge, limits.EDGE_PX)
        if edge is not None and edge % limits.EDGE_MULTIPLE_PX:
            below, above = edge - edge % limits.EDGE_MULTIPLE_PX, edge + -edge % limits.EDGE_MULTIPLE_PX
            yield Violation(
                field=f"generation.{field}",
                message=f"{edge} is no multiple of {limits.EDGE_MULTIPLE_PX}; {below} or {above} is",
                allowed=f"multiples of {limits.EDGE_MULTIPLE_PX}",
            )
    if (asked.width_px is None) != (asked.height_px is None):
        message = "give both width and height, or neither for the model's native size"
        yield Violation(
            field="generation.height_px" if asked.height_px is None else "generation.width_px", message=message
        )
    yield from _within("image_count", asked.image_count, limits.IMAGES)


def _sampling(asked: Generation) -> Iterator[Violation]:
    sampling = asked.sampling
    yield from _within("sampling.steps", sampling.steps, limits.STEPS)
    yield from _within("sampling.guidance_scale", sampling.guidance_scale, limits.GUIDANCE)
    yield from _within("sampling.eta", sampling.eta, limits.ETA)
    yield from _within("sampling.seed", sampling.seed, limits.SEED)
    if not sampling.scheduler:
        return
    known = SCHEDULERS.get(sampling.scheduler)
    if known is None:
        yield Violation(
            field="generation.sampling.scheduler",
            message=f"there is no scheduler {sampling.scheduler[:64]!r}; known: {', '.join(SCHEDULERS)}",
            allowed=", ".join(SCHEDULERS),
        )
    elif sampling.karras_sigmas and not known.karras:
        able = ", ".join(name for name, scheduler in SCHEDULERS.items() if scheduler.karras)
        yield Violation(
            field="generation.sampling.karras_sigmas",
            message=f"{sampling.scheduler} has no sigmas to space; those that have: {able}",
            allowed=able,
        )


def _output(asked: Generation) -> Iterator[Violation]:
    output = asked.output
    if output.media_type not in limits.MEDIA_TYPES:
        known = ", ".join(limits.MEDIA_TYPES)
        message = f"cannot write {output.media_type[:64]!r}; known: {known}"
        yield Violation(field="generation.output.media_type", message=message, allowed=known)
    if output.quality is not None and output.media_type == "image/png":
        message = "PNG is lossless and has no quality; leave it absent, or ask for image/jpeg or image/webp"
        yield Violation(field="generation.output.quality", message=message)
    else:
        yield from _within("output.quality", output.quality, limits.QUALITY)
    yield from preview_violations(asked.previews, "generation.previews")


def preview_violations(previews: Previews, path: str) -> Iterator[Violation]:
    """What is wrong with them; `path` is where they stand in the request."""
    yield from _within("every_steps", previews.every_steps, limits.PREVIEW_EVERY, path)
    yield from _within("max_edge_px", previews.max_edge_px, limits.PREVIEW_EDGE_PX, path)


def _within(field: str, value: float | None, bounds: Bounds, path: str = "generation") -> Iterator[Violation]:
    low, high = bounds
    if value is None or (math.isfinite(value) and low <= value <= high):
        return
    allowed = f"{low:g}..{high:g}" if isinstance(low, float) else f"{low}..{high}"
    yield Violation(field=f"{path}.{field}", message=f"{value} is not within {allowed}", allowed=allowed)
