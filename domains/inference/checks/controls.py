"""Finds the faults of the controls in a generation, as far as they do not depend on models or pictures."""

from collections.abc import Iterator

from domains.errors import Violation, excerpt
from domains.inference import limits
from domains.inference.checks.bounds import RATIOS, range_faults, within
from domains.inference.control_types import TOLD
from domains.inference.controls import Control, Preprocessing
from domains.inference.generation import Generation
from domains.inference.preprocessors import AVAILABLE, INPAINT, PREPROCESSORS


def control_violations(asked: Generation) -> Iterator[Violation]:
    """Every fault of its controls."""
    if len(asked.controls) > limits.CONTROLS:
        message = f"has {len(asked.controls)} controls; at most {limits.CONTROLS} guide together"
        yield Violation(field="generation.controls", message=message, allowed=f"0..{limits.CONTROLS} entries")
        return
    for place, control in enumerate(asked.controls):
        yield from _control(control, f"generation.controls[{place}]")


def control_exclusions(asked: Generation) -> Iterator[Violation]:
    """Fields that exclude controls."""
    for place, control in enumerate(asked.controls):
        if control.preprocessing is not None and control.preprocessing.kind == INPAINT:
            yield from _without_mask(asked, f"generation.controls[{place}].preprocessing.{INPAINT}")


def _without_mask(asked: Generation, path: str) -> Iterator[Violation]:
    if asked.mask is None:
        message = "marks the part that `mask` makes anew, and there is none; give a mask, or the map itself"
        yield Violation(field=path, message=message)
    elif asked.outpaint is not None:
        message = "marks a part of the picture as it is, and it grows; leave outpaint out, or give the map itself"
        yield Violation(field=path, message=message)


def _control(control: Control, path: str) -> Iterator[Violation]:
    if not control.model_id:
        yield Violation(field=f"{path}.model_id", message="must not be empty; name the ControlNet or T2I adapter")
    for name, picture in (("image", control.image), ("region", control.region)):
        if picture is not None and not picture.given:
            message = "must be set: give the file in `data`, or a blob that holds it in `blob_id`"
            yield Violation(field=f"{path}.{name}", message=message)
    if control.control_type and control.control_type not in TOLD:
        known = ", ".join(TOLD)
        message = f"there is no type of maps {excerpt(control.control_type)!r}; known: {known}"
        yield Violation(field=f"{path}.control_type", message=message, allowed=known)
    yield from within("controls.weight", control.weight, f"{path}.weight")
    yield from range_faults("controls", path, RATIOS, (control.start_ratio, control.end_ratio), "the steps end")
    if control.fit is not None and control.fit not in limits.FITS:
        able = ", ".join(f"IMAGE_FIT_{name.upper()}" for name in limits.FITS)
        message = "a control map has exactly the size of the result, which a contained picture may not have"
        yield Violation(field=f"{path}.fit", message=f"{message}; known: {able}", allowed=able)
    if control.preprocessing is not None:
        yield from _preprocessing(control.preprocessing, f"{path}.preprocessing")


def _preprocessing(given: Preprocessing, path: str) -> Iterator[Violation]:
    if given.kind not in PREPROCESSORS:
        able = ", ".join(AVAILABLE)
        yield Violation(field=path, message=f"must say how to make the map; known: {able}", allowed=able)
        return
    options = PREPROCESSORS[given.kind].options
    wrong = [
        one
        for name, value in given.options
        if name in options
        for one in within(f"controls.preprocessing.{given.kind}.{name}", value, f"{path}.{given.kind}.{name}")
    ]
    yield from wrong
    if given.kind == "canny" and not wrong:
        low, high = (given.option(name, options[name].default) for name in ("low_threshold", "high_threshold"))
        if high < low:
            message = f"{high:g} is below the low threshold, {low:g}; give one at least as high"
            yield Violation(field=f"{path}.canny.high_threshold", message=message, allowed=f"{low:g}..255")
