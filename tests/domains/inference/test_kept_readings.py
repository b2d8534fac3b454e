"""What ControlNets keep of prompts beside the present ones, and which maps one forward reads."""

from typing import Any

import pytest
from msgspec.structs import replace

from domains.inference.control_types import control_types_of, forwards_of
from domains.inference.controls import ControlBalance, ResolvedControl, UsedPicture
from domains.inference.generation import ResolvedGeneration
from domains.inference.hires import ResolvedHires
from domains.inference.image_fit import ImageFit
from domains.inference.kept_readings import KeptReading, kept_readings
from domains.inference.prompts import Syntax
from domains.inference.regions import Rectangle, ResolvedRegion
from domains.inference.resampling import Resampling
from tests.domains.inference.on_device.requests import embedded_model, request

USED = UsedPicture(blob_id="b", sha256="0" * 64)
NET = ResolvedControl(model_id="net", model_sha256="1" * 64, image=USED, fit=ImageFit.COVER)
HALF = Rectangle(left_px=0, top_px=0, width_px=8, height_px=8)
CHANGES = "[an owl:a cat:2]"
TOKENS = 77


def asked(*controls: ResolvedControl, prompt: str = CHANGES, **changes: Any) -> ResolvedGeneration:
    plain: dict[str, Any] = {"width_px": 64, "height_px": 32, "steps": 4, "prompt_syntax": Syntax.A1111}
    return request(embedded_model(), prompt=prompt, controls=controls, **plain | changes)


def kept(*controls: ResolvedControl, **changes: Any) -> list[KeptReading]:
    ((*found,),) = kept_readings(asked(*controls, **changes))
    return found


@pytest.mark.parametrize(
    ("changes", "prompts", "pooled"),
    [
        ({}, 2, 2),
        ({"guidance_scale": 1.0}, 1, 1),
        ({"guidance_end_ratio": 0.25}, 2, 2),
        ({"guidance_start_ratio": 0.9}, 1, 1),
        ({"prompt": "[an owl:a cat:2] AND fog"}, 4, 4),
    ],
)
def test_a_reading_that_counts_no_more_has_a_row_for_each_prompt_and_one_without_it(
    changes: dict[str, Any], prompts: int, pooled: int
) -> None:
    assert kept(NET, **changes) == [KeptReading(model_id="net", tokens=TOKENS, prompts=prompts, pooled=pooled)]


@pytest.mark.parametrize(
    ("control", "changes"),
    [
        ({}, {"prompt": "an owl"}),
        ({"weight": 0.0}, {}),
        ({"t2i_adapter": True}, {}),
        ({"end_ratio": 0.5}, {}),
        ({"start_ratio": 0.5}, {}),
    ],
)
def test_nothing_is_kept_of_a_prompt_that_does_not_change_where_a_net_counts(
    control: dict[str, Any], changes: dict[str, Any]
) -> None:
    assert kept(replace(NET, **control), **changes) == []


def test_prompts_of_regions_are_read_too_and_have_their_shares_at_each_pixel() -> None:
    regions = (ResolvedRegion(rectangle=HALF, prompt="fog"), ResolvedRegion(rectangle=HALF, prompt="rain"))
    (found,) = kept(NET, regions=regions)
    assert (found.prompts, found.pooled, found.map_bytes) == (6, 2, 64 * 32 * 4 * 3)


def test_of_several_prompts_that_pass_the_largest_is_told() -> None:
    late = ResolvedRegion(rectangle=HALF, prompt="fog", start_ratio=0.25, end_ratio=0.5)
    (found,) = kept(NET, prompt="an owl", regions=(late,))
    assert (found.prompts, found.map_bytes) == (4, 64 * 32 * 4 * 2)


def test_each_net_of_each_pass_is_told() -> None:
    other = replace(NET, model_id="other")
    assert [one.model_id for one in kept(NET, replace(NET, weight=0.0), other)] == ["net", "other"]
    hires = ResolvedHires(
        width_px=128,
        height_px=64,
        filter=Resampling.BICUBIC,
        of_pixels=False,
        strength=1.0,
        steps=4,
        sampler="dpmpp_2m",
        sigma_schedule="normal",
        guidance_scale=5.0,
        eta=None,
    )
    found = kept_readings(asked(NET, hires_pass=hires))
    assert [[one.model_id for one in each] for each in found] == [["net"], ["net"]]
    assert [len(each) for each in kept_readings(asked())] == [0]


UNION = replace(NET, control_type="canny")


@pytest.mark.parametrize(
    ("family", "others", "groups"),
    [
        ("sdxl", [{}], [[0, 1]]),
        ("sdxl", [{"control_type": "depth", "weight": 0.5}, {}], [[0, 1, 2]]),
        ("flux1", [{}], [[0], [1]]),
        ("sdxl", [{"control_type": ""}], [[0], [1]]),
        ("sdxl", [{"region": USED}], [[0], [1]]),
        ("sdxl", [{"model_id": "other"}], [[0], [1]]),
        ("sdxl", [{"model_sha256": "2" * 64}], [[0], [1]]),
        ("sdxl", [{"start_ratio": 0.5}], [[0], [1]]),
        ("sdxl", [{"end_ratio": 0.5}], [[0], [1]]),
        ("sdxl", [{"balance": ControlBalance.PROMPT}], [[0], [1]]),
        ("sdxl", [{"end_ratio": 0.5}, {}, {"end_ratio": 0.5}], [[0, 2], [1, 3]]),
    ],
)
def test_maps_of_one_union_network_that_count_alike_are_read_together(
    family: str, others: list[dict[str, Any]], groups: list[list[int]]
) -> None:
    assert forwards_of([UNION, *(replace(UNION, **changes) for changes in others)], family) == groups
    assert forwards_of([], family) == []


def test_types_of_maps_are_those_of_union_networks_then_those_that_a_picture_becomes() -> None:
    assert control_types_of("sdxl")[:3] == ("pose", "depth", "soft_edge")
    assert {"inpaint", "shuffle"} & {*control_types_of("sd1")}
    assert len({*control_types_of("sdxl")}) == len(control_types_of("sdxl"))
    assert control_types_of("auraflow") == ()
