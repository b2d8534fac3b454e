"""Controls, image prompts and regions: each fault is refused by its field, and what is just within the limits is taken."""

import ast
import re
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from domains.errors import InvalidRequest
from domains.inference import limits
from domains.inference.checks.regions import resolved_regions
from domains.inference.checks.request import violations
from domains.inference.controls import Control, PictureSource, Preprocessing, ResolvedControl, UsedPicture
from domains.inference.generation import Generation
from domains.inference.image_fit import ImageFit
from domains.inference.image_prompts import ImagePrompt, ResolvedImagePrompt
from domains.inference.input_picture import InputPicture
from domains.inference.masks import InpaintMask, Outpaint
from domains.inference.preprocessors import AVAILABLE
from domains.inference.prompts import Syntax
from domains.inference.references import Reference
from domains.inference.regions import Rectangle, Region, ResolvedRegion
from domains.inference.resolution.references import (
    default_image_guidance,
    nearest_px,
    references_of,
    resolved_references,
)
from tests.domains.inference.on_device.requests import embedded_model

PICTURE = PictureSource(blob_id="b-1")
INLINE = PictureSource(data=b"\x89PNG")
NONE = PictureSource()
BOX = Rectangle(left_px=0, top_px=0, width_px=8, height_px=8)
LONG = "x" * limits.PROMPT_BYTES
ZOOMED = InpaintMask(blob_id="b-2", zoom_to_mask=True)
USED = UsedPicture(blob_id="b-1", sha256="0" * 64)


def control(**changes: Any) -> Control:
    plain: dict[str, Any] = {"model_id": "net", "image": PICTURE}
    return Control(**plain | changes)


def canny(**options: float) -> Control:
    return control(preprocessing=Preprocessing(kind="canny", options=tuple(options.items())))


def prompt(**changes: Any) -> ImagePrompt:
    plain: dict[str, Any] = {"model_id": "adapter", "images": (PICTURE,)}
    return ImagePrompt(**plain | changes)


def region(**changes: Any) -> Region:
    plain: dict[str, Any] = {"rectangle": BOX}
    return Region(**plain | changes)


RANGES: list[tuple[dict[str, Any], str]] = [
    ({"weight": 0.0}, ""),
    ({"weight": 10.0}, ""),
    ({"weight": -0.001}, "weight"),
    ({"weight": 10.001}, "weight"),
    ({"weight": float("nan")}, "weight"),
    ({"start_ratio": 0.0, "end_ratio": 0.001}, ""),
    ({"start_ratio": 0.999, "end_ratio": 1.0}, ""),
    ({"start_ratio": -0.001}, "start_ratio"),
    ({"start_ratio": 1.0}, "start_ratio"),
    ({"end_ratio": 0.0}, "end_ratio"),
    ({"end_ratio": 1.001}, "end_ratio"),
    ({"start_ratio": 0.5, "end_ratio": 0.5}, "end_ratio"),
]
"""What all of them have: changes, and the field that is refused."""
CONTROLS: list[tuple[Control, str]] = [
    (control(image=INLINE), ""),
    (control(model_id=""), "model_id"),
    (control(image=NONE), "image"),
    (control(region=INLINE), ""),
    (control(region=NONE), "region"),
    *((control(fit=ImageFit(name)), "") for name in limits.FITS),
    (control(fit=ImageFit.CONTAIN), "fit"),
    *((control(preprocessing=Preprocessing(kind=name)), "") for name in AVAILABLE if name != "inpaint"),
    (control(preprocessing=Preprocessing(kind="sharpen")), "preprocessing"),
    (canny(low_threshold=0.0, high_threshold=255.0), ""),
    (canny(low_threshold=7.0, high_threshold=7.0), ""),
    (canny(low_threshold=7.0, high_threshold=6.0), "preprocessing.canny.high_threshold"),
    (canny(high_threshold=99.0), "preprocessing.canny.high_threshold"),
    (canny(low_threshold=201.0), "preprocessing.canny.high_threshold"),
    (canny(low_threshold=-1.0), "preprocessing.canny.low_threshold"),
    (canny(low_threshold=256.0), "preprocessing.canny.low_threshold"),
]
PROMPTS: list[tuple[ImagePrompt, str]] = [
    (prompt(model_id=""), "model_id"),
    (prompt(images=()), "images"),
    (prompt(images=(PICTURE,) * 16), ""),
    (prompt(images=(PICTURE,) * 17), "images"),
    (prompt(images=(INLINE, NONE)), "images[1]"),
    (prompt(region=INLINE, negative_image=INLINE), ""),
    (prompt(region=NONE), "region"),
    (prompt(negative_image=NONE), "negative_image"),
]
REGIONS: list[tuple[Region, str]] = [
    (region(rectangle=None, mask=INLINE), ""),
    (region(rectangle=None), "."),
    (region(mask=PICTURE), "."),
    (region(rectangle=None, mask=NONE), "mask"),
    (region(prompt=LONG, negative_prompt=LONG), ""),
    (region(prompt=LONG + "x"), "prompt"),
    (region(negative_prompt=LONG + "x"), "negative_prompt"),
]


def wrong(**fields: Any) -> list[str]:
    return [one.field.removeprefix("generation.") for one in violations(Generation(prompt="p", **fields)).alone]


@pytest.mark.parametrize(
    ("box", "field", "allowed"),
    [
        ((0, 0, 64, 128), "", ""),
        ((63, 127, 1, 1), "", ""),
        ((-1, 0, 8, 8), "left_px", "0..63"),
        ((64, 0, 1, 8), "left_px", "0..63"),
        ((0, 128, 8, 1), "top_px", "0..127"),
        ((0, 0, 0, 8), "width_px", "1..64"),
        ((8, 0, 57, 8), "width_px", "1..56"),
        ((0, 1, 8, 128), "height_px", "1..127"),
    ],
)
def test_a_rectangle_lies_inside_the_picture(box: tuple[int, int, int, int], field: str, allowed: str) -> None:
    left, top, width, height = box
    rectangle = Rectangle(left_px=left, top_px=top, width_px=width, height_px=height)
    asked = Generation(prompt="p", regions=(region(), region(rectangle=rectangle)))
    if not field:
        assert [one.rectangle for one in resolved_regions(asked, (64, 128), (None, None), ((), ()))] == [BOX, rectangle]
        return
    with pytest.raises(InvalidRequest) as refused:
        resolved_regions(asked, (64, 128), (None, None), ((), ()))
    told = [(one.field, one.allowed) for one in refused.value.violations]
    assert told == [(f"generation.regions[1].rectangle.{field}", allowed)]


def test_a_region_counts_whole_in_all_steps_unless_told_otherwise() -> None:
    mask = InputPicture(blob_id="b-3", sha256="3" * 64, width_px=8, height_px=8)
    asked = Generation(
        prompt="p",
        regions=(region(rectangle=None, mask=PICTURE), region(weight=0.0, start_ratio=0.25, end_ratio=0.5, prompt="x")),
    )
    left, told = resolved_regions(asked, (64, 128), (mask, None), ((), ()))
    assert (left.mask, left.rectangle) == (UsedPicture(blob_id="b-3", sha256="3" * 64), None)
    assert (left.weight, left.start_ratio, left.end_ratio, left.prompt) == (1.0, 0.0, 1.0, "")
    assert (told.weight, told.start_ratio, told.end_ratio, told.prompt) == (0.0, 0.25, 0.5, "x")


def together(**fields: Any) -> list[str]:
    return [one.field.removeprefix("generation.") for one in violations(Generation(prompt="p", **fields)).together]


@pytest.mark.parametrize(
    ("name", "entry", "field"),
    [
        *(("controls", *each) for each in CONTROLS),
        *(("image_prompts", *each) for each in PROMPTS),
        *(("regions", *each) for each in REGIONS),
        *(("controls", control(**changes), field) for changes, field in RANGES),
        *(("image_prompts", prompt(**changes), field) for changes, field in RANGES),
        *(("regions", region(**changes), field) for changes, field in RANGES),
    ],
)
def test_a_fault_is_refused_by_its_field_and_nothing_else_is(name: str, entry: Any, field: str) -> None:
    sound = {"controls": control(), "image_prompts": prompt(), "regions": region()}[name]
    expected = [f"{name}[1].{field}".removesuffix("..")] if field else []
    assert wrong(**{name: (sound, entry)}) == expected


@pytest.mark.parametrize(
    ("name", "entry", "most"), [("controls", control(), 8), ("image_prompts", prompt(), 8), ("regions", region(), 16)]
)
def test_so_many_guide_together_and_no_more(name: str, entry: Any, most: int) -> None:
    assert wrong(**{name: (entry,) * most}) == []
    assert wrong(**{name: (entry,) * (most + 1)}) == [name]


def test_an_unknown_type_of_maps_is_told_in_part_with_the_known_ones() -> None:
    asked = Generation(prompt="p", controls=(control(control_type="x" * 300),))
    (violation,) = violations(asked).alone
    assert violation.field == "generation.controls[0].control_type"
    assert f"'{'x' * 255}…'" in violation.message
    assert {"canny", "depth"} <= set(violation.allowed.split(", "))


def test_what_lies_in_the_whole_picture_goes_with_a_zoom_into_a_part_of_it() -> None:
    begin = {"init_image": None, "mask": ZOOMED}
    plain = together(**begin)
    assert together(**begin, image_prompts=(prompt(region=PICTURE),)) == plain
    assert together(**begin, regions=(region(),)) == plain
    assert together(**begin, controls=(control(),)) == plain, "its map is cut as the picture is"


def test_regions_exclude_a_picture_that_grows_and_prompts_that_and_joins() -> None:
    assert "regions" in together(regions=(region(),), outpaint=Outpaint(left_px=8))
    a1111 = Syntax.A1111
    assert together(regions=(region(prompt="a"),), prompt_syntax=a1111) == []
    assert together(regions=(region(prompt="a AND b"),), prompt_syntax=a1111) == ["regions[0].prompt"]
    assert together(regions=(region(prompt="a AND b"),)) == []


def test_the_map_of_a_masked_part_needs_a_mask_on_a_picture_as_it_is() -> None:
    inpaint = control(preprocessing=Preprocessing(kind="inpaint"))
    path = "controls[0].preprocessing.inpaint"
    mask = InpaintMask(blob_id="b-2")
    assert path in together(controls=(inpaint,))
    assert path not in together(controls=(inpaint,), mask=mask)
    assert path in together(controls=(inpaint,), mask=mask, outpaint=Outpaint(left_px=8))
    assert path not in together(controls=(control(),), mask=mask, outpaint=Outpaint(left_px=8))


@pytest.mark.parametrize(
    ("begin", "end", "steps"),
    [(0.0, 1.0, range(10)), (0.3, 0.7, range(3, 7)), (0.31, 0.69, range(4, 6)), (0.9, 1.0, range(9, 10))],
)
def test_a_step_counts_that_lies_within_the_range(begin: float, end: float, steps: range) -> None:
    ends: dict[str, Any] = {"start_ratio": begin, "end_ratio": end}
    net: dict[str, Any] = {"model_id": "m", "model_sha256": "0" * 64}
    assert ResolvedControl(**net, image=USED, fit=ImageFit.STRETCH, **ends).steps_of(10) == steps
    encoder: dict[str, Any] = {"encoder_model_id": "e", "encoder_sha256": "0" * 64, "edge_px": 224}
    assert ResolvedImagePrompt(**net, **encoder, images=(USED,), **ends).steps_of(10) == steps
    assert ResolvedRegion(rectangle=BOX, **ends).steps_of(10) == steps
    assert not ResolvedRegion(rectangle=BOX, weight=0.0, **ends).steps_of(10)


def test_a_model_made_for_editing_sees_pictures_and_others_none() -> None:
    base = embedded_model()
    edits = replace(base, family="sd1", variant="editing")
    kontext = replace(base, family="flux1", variant="editing")
    assert (references_of(base), default_image_guidance(base)) == ((0, 0), None)
    assert (references_of(edits), default_image_guidance(edits)) == ((1, 1), 1.5)
    assert references_of(kontext) == (0, 1)
    asked = (Reference(image=PICTURE), Reference(image=PICTURE, fit=ImageFit.PAD))
    read = tuple(
        InputPicture(blob_id=f"b-{at}", sha256=f"{at}" * 64, width_px=200, height_px=100) for at in range(len(asked))
    )
    sizes = [(one.width_px, one.height_px, one.fit) for one in resolved_references(asked, edits, (64, 128), read)]
    assert sizes == [(64, 128, ImageFit.COVER), (64, 128, ImageFit.PAD)]
    sizes = [(one.width_px, one.height_px) for one in resolved_references(asked, kontext, (64, 128), read)]
    assert sizes == [(1456, 720)] * 2
    with pytest.raises(InvalidRequest, match="were not read"):
        resolved_references(asked, edits, (64, 128), read[:1])


@pytest.mark.parametrize(("aspect", "size"), [(0.01, (672, 1568)), (100.0, (1568, 672)), (0.74, (880, 1184))])
def test_a_reference_has_the_trained_size_of_the_nearest_aspect(aspect: float, size: tuple[int, int]) -> None:
    assert nearest_px(aspect) == size


def test_the_trained_sizes_of_references_are_those_of_diffusers() -> None:
    spec = find_spec("diffusers")
    assert spec is not None
    assert spec.origin is not None
    # Read, since an import would take seconds.
    source = Path(spec.origin).parent / "pipelines" / "flux" / "pipeline_flux_kontext.py"
    (table,) = re.findall(r"PREFERRED_KONTEXT_RESOLUTIONS = (\[.*?\])", source.read_text("utf-8"), re.DOTALL)
    sizes = ast.literal_eval(table)
    assert [nearest_px(width / height) for width, height in sizes] == sizes
    assert len(sizes) == 17
