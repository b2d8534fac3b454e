"""Finds the faults of the regions in a generation, and makes the choices that they leave open."""

from collections.abc import Iterator, Sequence

from domains.errors import ErrorReason, InvalidRequest, Violation
from domains.inference import limits
from domains.inference.checks.adapters import lora_violations
from domains.inference.checks.bounds import RATIOS, range_faults, within
from domains.inference.controls import UsedPicture
from domains.inference.generation import Generation
from domains.inference.input_picture import InputPicture
from domains.inference.loras import ResolvedLora
from domains.inference.prompts import Syntax, composed
from domains.inference.regions import Region, ResolvedRegion


def region_violations(asked: Generation) -> Iterator[Violation]:
    """Every fault of its regions that does not depend on the size of the picture."""
    if len(asked.regions) > limits.REGIONS:
        message = f"has {len(asked.regions)} regions; at most {limits.REGIONS} have prompts of their own"
        yield Violation(field="generation.regions", message=message, allowed=f"0..{limits.REGIONS} entries")
        return
    for place, region in enumerate(asked.regions):
        yield from _region(region, f"generation.regions[{place}]")


def region_exclusions(asked: Generation) -> Iterator[Violation]:
    """Fields that exclude regions."""
    if not asked.regions:
        return
    if asked.outpaint is not None:
        message = "lie in the picture before it grows, and outpaint makes what is beyond; leave one of the two out"
        yield Violation(field="generation.regions", message=message)
    if asked.prompt_syntax is Syntax.A1111:
        yield from _joined(asked)


def _joined(asked: Generation) -> Iterator[Violation]:
    """Prompts that AND joins."""
    texts = {"prompt": asked.prompt, **{f"regions[{at}].prompt": one.prompt for at, one in enumerate(asked.regions)}}
    for path, text in texts.items():
        if len(composed(text)) > 1:
            message = "AND joins prompts over the whole picture, and regions have prompts of their own; write no AND"
            yield Violation(field=f"generation.{path}", message=message)


def _region(region: Region, path: str) -> Iterator[Violation]:
    if (region.mask is None) == (region.rectangle is None):
        message = "must say where it is: by `mask` or by `rectangle`, one of the two"
        yield Violation(field=path, message=message)
    if region.mask is not None and not region.mask.given:
        message = "must be set: give the file in `data`, or a blob that holds it in `blob_id`"
        yield Violation(field=f"{path}.mask", message=message)
    for name in ("prompt", "negative_prompt"):
        size = len(getattr(region, name).encode())
        if size > limits.PROMPT_BYTES:
            message = f"has {size} bytes; a prompt has at most {limits.PROMPT_BYTES}"
            allowed = f"0..{limits.PROMPT_BYTES} bytes"
            yield Violation(field=f"{path}.{name}", message=message, allowed=allowed)
    yield from within("regions.weight", region.weight, f"{path}.weight")
    yield from range_faults("regions", path, RATIOS, (region.start_ratio, region.end_ratio), "the steps end")
    yield from lora_violations(region.loras, f"{path}.loras", limits.REGION_LORAS)


def resolved_regions(
    asked: Generation,
    size_px: tuple[int, int],
    masks: Sequence[InputPicture | None],
    loras: Sequence[tuple[ResolvedLora, ...]],
) -> tuple[ResolvedRegion, ...]:
    """The regions with every choice made. `masks`: what was read of each; `loras`: of each. Raises INVALID_FIELD for a
    rectangle that does not lie inside a picture of this size (width, height)."""
    if wrong := [*_outside(asked.regions, size_px)]:
        raise InvalidRequest(wrong, ErrorReason.INVALID_FIELD)
    return tuple(_resolved(*one) for one in zip(asked.regions, masks, loras, strict=True))


def _outside(regions: Sequence[Region], size_px: tuple[int, int]) -> Iterator[Violation]:
    width, height = size_px
    for place, region in enumerate(regions):
        box = region.rectangle
        if box is None:
            continue
        path = f"generation.regions[{place}].rectangle"
        sides = (
            ("left_px", "width_px", box.left_px, box.width_px, width),
            ("top_px", "height_px", box.top_px, box.height_px, height),
        )
        for begins, extends, begin, extent, edge in sides:
            if not 0 <= begin < edge:
                message = f"{begin} is outside the picture, which has {edge} pixels there"
                yield Violation(field=f"{path}.{begins}", message=message, allowed=f"0..{edge - 1}")
            elif not 1 <= extent <= edge - begin:
                message = f"{extent} does not end inside the picture, which has {edge} pixels there"
                yield Violation(field=f"{path}.{extends}", message=message, allowed=f"1..{edge - begin}")


def _resolved(region: Region, mask: InputPicture | None, loras: tuple[ResolvedLora, ...]) -> ResolvedRegion:
    return ResolvedRegion(
        mask=None if mask is None else UsedPicture(blob_id=mask.blob_id, sha256=mask.sha256),
        rectangle=region.rectangle,
        prompt=region.prompt,
        negative_prompt=region.negative_prompt,
        weight=1.0 if region.weight is None else region.weight,
        start_ratio=region.start_ratio or 0.0,
        end_ratio=1.0 if region.end_ratio is None else region.end_ratio,
        loras=loras,
    )
