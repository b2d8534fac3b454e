"""What a mask cannot be is refused by its field, before anything is computed."""

from typing import Any

import pytest
from msgspec.structs import replace

from domains.errors import InvalidRequest
from domains.inference.branch import filled
from domains.inference.checks.masks import for_variant, resolved_mask
from domains.inference.checks.outpaint import resolved_outpaint
from domains.inference.checks.request import checked, violations
from domains.inference.generation import Generation
from domains.inference.image_fit import ImageFit
from domains.inference.init_image import InitImage
from domains.inference.input_picture import InputPicture, resolved_picture
from domains.inference.masks import InpaintMask, Outpaint
from domains.inference.regions import Rectangle, Region
from domains.inference.resolution.request_files import RequestFiles
from domains.inference.resolution.resolve import resolve
from domains.model.families.unet import INPAINTING
from tests.domains.inference.on_device.requests import embedded_model, request

START = InitImage(blob_id="b-1")
MASK = InpaintMask(blob_id="b-2")
BAD: dict[str, tuple[dict[str, Any], str]] = {
    "no file": ({"mask": InpaintMask()}, "mask.image"),
    "too much blur": ({"mask": InpaintMask(blob_id="b", blur_px=51)}, "mask.blur_px"),
    "less than no growth": ({"mask": InpaintMask(blob_id="b", dilation_px=-1)}, "mask.dilation_px"),
    "too much padding": (
        {"mask": InpaintMask(blob_id="b", zoom_to_mask=True, zoom_padding_px=257)},
        "mask.zoom_padding_px",
    ),
    "no growth": ({"outpaint": Outpaint()}, "outpaint"),
    "less than no side": ({"outpaint": Outpaint(left_px=-8)}, "outpaint.left_px"),
    "too much of a side": ({"outpaint": Outpaint(top_px=2056)}, "outpaint.top_px"),
    "a growth between multiples": ({"outpaint": Outpaint(right_px=12)}, "outpaint.right_px"),
    "too much overlap": ({"outpaint": Outpaint(bottom_px=8, overlap_px=257)}, "outpaint.overlap_px"),
}
TOGETHER: dict[str, tuple[dict[str, Any], str]] = {
    "no picture": ({"init_image": None}, "mask"),
    "growth without a picture": ({"init_image": None, "mask": None, "outpaint": Outpaint(left_px=8)}, "outpaint"),
    "growth of a zoomed part": (
        {"mask": InpaintMask(blob_id="b", zoom_to_mask=True), "outpaint": Outpaint(left_px=8)},
        "mask.zoom_to_mask",
    ),
    "padding without a zoom": ({"mask": InpaintMask(blob_id="b", zoom_padding_px=3)}, "mask.zoom_padding_px"),
}


def asked(**changes: Any) -> Generation:
    plain: dict[str, Any] = {"prompt": "x", "init_image": START, "mask": MASK}
    return Generation(**{**plain, **changes})


def picture(width: int, height: int) -> InputPicture:
    return InputPicture(blob_id="b", sha256="0" * 64, width_px=width, height_px=height)


@pytest.mark.parametrize("case", list(BAD))
def test_a_mask_that_is_wrong_by_itself_is_refused_by_its_field(case: str) -> None:
    changes, field = BAD[case]
    assert [one.field for one in violations(asked(**changes)).alone] == [f"generation.{field}"]


@pytest.mark.parametrize("case", list(TOGETHER))
def test_what_a_mask_needs_is_told_by_its_field(case: str) -> None:
    changes, field = TOGETHER[case]
    found = violations(asked(**changes))
    assert ([one.field for one in found.together], found.alone) == ([f"generation.{field}"], ())


@pytest.mark.parametrize(
    ("size", "changes", "fits"),
    [
        ((80, 64), {}, True),
        ((64, 80), {}, False),
        ((40, 32), {}, False),
        ((64, 64), {"width_px": 64, "height_px": 64}, True),
        ((40, 32), {"init_image": InitImage(blob_id="b-1", fit=ImageFit.COVER)}, True),
    ],
)
def test_a_mask_has_the_size_of_its_picture_or_is_fitted_as_it_is(
    size: tuple[int, int], changes: dict[str, Any], fits: bool
) -> None:
    def resolve() -> object:
        return resolved_mask(asked(**changes), picture(*size), picture(80, 64))

    if fits:
        assert resolve() is not None
        return
    with pytest.raises(InvalidRequest) as refused:
        resolve()
    assert [one.field for one in refused.value.violations] == ["generation.mask.image"]
    assert f"{size[0]}×{size[1]}" in refused.value.message


def test_a_zoom_keeps_the_size_of_a_picture_that_has_another_one() -> None:
    zoomed = InpaintMask(blob_id="b-2", zoom_to_mask=True)
    kept = resolved_picture(asked(mask=zoomed, width_px=64, height_px=64), picture(300, 200), 4)
    assert (kept.own_size_px, kept.fit) == ((300, 200), None)
    with pytest.raises(InvalidRequest):
        resolved_picture(asked(width_px=64, height_px=64), picture(300, 200), 4)


@pytest.mark.parametrize(("left_px", "outside"), [(100, False), (292, False), (293, True)])
def test_a_rectangle_lies_in_the_picture_of_which_a_part_is_made(left_px: int, outside: bool) -> None:
    box = Rectangle(left_px=left_px, top_px=192, width_px=8, height_px=8)
    zoomed = asked(
        mask=InpaintMask(blob_id="b-2", zoom_to_mask=True),
        width_px=64,
        height_px=64,
        regions=(Region(prompt="a cat", rectangle=box),),
    )
    read = RequestFiles(picture=picture(300, 200), mask=picture(300, 200), regions=(None,))
    if not outside:
        assert resolve(zoomed, embedded_model(), read).regions[0].rectangle == box
        return
    with pytest.raises(InvalidRequest) as refused:
        resolve(zoomed, embedded_model(), read)
    assert [one.field for one in refused.value.violations] == ["generation.regions[0].rectangle.width_px"]


def test_a_picture_grows_within_the_limits() -> None:
    model = embedded_model()
    grown = asked(mask=None, outpaint=Outpaint(left_px=8, bottom_px=16))
    found = resolve(grown, model, RequestFiles(picture=picture(80, 64)))
    assert ((found.width_px, found.height_px), found.before_px) == ((88, 80), (80, 64))
    assert found.computed_steps == found.steps
    with pytest.raises(InvalidRequest) as refused:
        resolve(
            asked(mask=None, outpaint=Outpaint(top_px=2048, bottom_px=2048)),
            model,
            RequestFiles(picture=picture(80, 64)),
        )
    (violation,) = refused.value.violations
    assert violation.field == "generation.outpaint"
    assert "80×4160 pixels; an edge has at most 4096" in violation.message
    longest = asked(mask=None, outpaint=Outpaint(left_px=2048, right_px=1968))
    assert resolve(longest, model, RequestFiles(picture=picture(80, 64))).width_px == 4096


def test_a_model_made_for_inpainting_needs_a_mask_or_a_growth() -> None:
    made_for_it = replace(embedded_model(), variant=INPAINTING)
    assert [one.field for one in for_variant(asked(init_image=None, mask=None), made_for_it)] == ["generation.mask"]
    for given in (asked(), asked(mask=None, outpaint=Outpaint(left_px=8))):
        assert not list(for_variant(given, made_for_it))
    assert not list(for_variant(asked(init_image=None, mask=None), embedded_model()))


def test_a_branch_keeps_the_mask_of_its_source() -> None:
    plain = checked(Generation(prompt="y"))
    assert filled(plain, asked(), request(embedded_model())).asked.mask == MASK


@pytest.mark.parametrize(("asked_px", "overlap_px"), [(None, 32), (0, 0), (5, 5)])
def test_a_growth_overlaps_its_picture_by_what_it_says(asked_px: int | None, overlap_px: int) -> None:
    found = resolved_outpaint(Generation(prompt="", outpaint=Outpaint(top_px=8, overlap_px=asked_px)))
    assert found is not None
    assert (found.overlap_px, found.top_px, found.left_px) == (overlap_px, 8, 0)
    assert resolved_outpaint(Generation(prompt="")) is None
