"""Refuses an impossible generation: every violation at once, each with its field and what would be right."""

import math
from collections.abc import Iterator

from domains.errors import ErrorReason, InvalidRequest, Violation
from domains.inference import limits
from domains.inference.generation import EncodeOptions, Generation, ManifestDetail
from domains.inference.schedulers import SCHEDULERS

Bounds = tuple[int, int] | tuple[float, float]


def check(asked: Generation) -> None:
    """Raise InvalidRequest with all violations. Needs no model: what depends on one is checked by `resolve`."""
    violations = [*_prompt(asked), *_size(asked), *_sampling(asked), *_output(asked)]
    if clashes := list(_clashes(asked)):
        reason = ErrorReason.INVALID_FIELD if violations else ErrorReason.UNSUPPORTED_COMBINATION
        raise InvalidRequest([*violations, *clashes], reason)
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
    else:
        yield from _depth(output)
    yield from _quality(output)
    yield from _parameters(asked)
    yield from _within("previews.every_steps", asked.previews.every_steps, limits.PREVIEW_EVERY)
    yield from _within("previews.max_edge_px", asked.previews.max_edge_px, limits.PREVIEW_EDGE_PX)


def _quality(output: EncodeOptions) -> Iterator[Violation]:
    if output.lossless and output.media_type == "image/jpeg":
        able = ", ".join(limits.LOSSLESS)
        message = f"JPEG cannot keep every pixel; these can: {able}"
        yield Violation(field="generation.output.lossless", message=message, allowed=able)
    if output.quality is not None and (output.lossless or output.media_type == "image/png"):
        what = "PNG is lossless" if output.media_type == "image/png" else "a lossless picture keeps every pixel"
        message = f"{what} and has no quality; leave it absent, or ask for a lossy image/jpeg or image/webp"
        yield Violation(field="generation.output.quality", message=message)
    else:
        yield from _within("output.quality", output.quality, limits.QUALITY)


def _depth(output: EncodeOptions) -> Iterator[Violation]:
    depths = limits.BIT_DEPTHS.get(output.media_type, (0,))
    if output.bit_depth not in depths:
        allowed = ", ".join(str(depth) for depth in depths)
        message = f"{output.media_type} has no depth of {output.bit_depth} bits a colour; known (0: 8): {allowed}"
        yield Violation(field="generation.output.bit_depth", message=message, allowed=allowed)


def _parameters(asked: Generation) -> Iterator[Violation]:
    size = len((asked.prompt + asked.negative_prompt).encode("utf-16-le"))
    output, limit = asked.output, limits.JPEG_PARAMETERS_BYTES
    if output.a1111_parameters and output.media_type == "image/jpeg" and size > limit:
        message = f"the prompts have {size} bytes as UTF-16, and JPEG holds {limit}; ask for image/png or image/webp"
        yield Violation(field="generation.output.a1111_parameters", message=message)


def _clashes(asked: Generation) -> Iterator[Violation]:
    """What is right alone and wrong together."""
    output = asked.output
    if output.a1111_parameters and output.manifest is not ManifestDetail.FULL:
        message = "the text holds the prompts, which this manifest leaves out; ask for a full manifest, or leave it out"
        yield Violation(field="generation.output.a1111_parameters", message=message)


def _within(field: str, value: float | None, bounds: Bounds) -> Iterator[Violation]:
    low, high = bounds
    if value is None or (math.isfinite(value) and low <= value <= high):
        return
    allowed = f"{low:g}..{high:g}" if isinstance(low, float) else f"{low}..{high}"
    yield Violation(field=f"generation.{field}", message=f"{value} is not within {allowed}", allowed=allowed)
