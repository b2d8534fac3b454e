"""Sizes that a denoiser is told: only families that were trained with some, and within their ranges."""

import msgspec
import pytest

from domains.errors import ErrorReason, InvalidRequest
from domains.inference.checks.request import for_family, violations
from domains.inference.generation import Generation
from domains.inference.resolution.resolve import resolve
from domains.inference.size_conditioning import AS_MADE, SizeConditioning
from domains.model.families import FAMILIES
from tests.domains.inference.on_device.requests import embedded_model


def test_without_a_word_nothing_is_cropped_or_scaled() -> None:
    assert AS_MADE.numbers((64, 48)) == (48, 64, 0, 0, 48, 64)
    told = SizeConditioning(original_px=(100, 200), crop_left_px=3, crop_top_px=4)
    assert told.numbers((64, 48)) == (200, 100, 4, 3, 48, 64)
    assert SizeConditioning(original_px=(100, 0)).numbers((64, 48)) == (48, 100, 0, 0, 48, 64)


def test_a_family_without_sizes_refuses_them() -> None:
    asked = Generation(prompt="owl", size_conditioning=SizeConditioning(target_px=(0, 9), crop_left_px=1))
    with pytest.raises(InvalidRequest) as refused:
        resolve(asked, embedded_model())
    assert refused.value.reason is ErrorReason.UNSUPPORTED_COMBINATION
    paths = [one.field.removeprefix("generation.size_conditioning.") for one in refused.value.violations]
    assert paths == ["target_size.height_px", "crop_left_px"]
    assert resolve(Generation(prompt="owl", size_conditioning=AS_MADE), embedded_model()).size_conditioning is None
    assert not list(for_family(asked, FAMILIES["sdxl"]))


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"crop_left_px": -1}, "crop_left_px"),
        ({"crop_top_px": 4097}, "crop_top_px"),
        ({"original_px": (-1, 5)}, "original_size.width_px"),
        ({"target_px": (5, 20000)}, "target_size.height_px"),
    ],
)
def test_sizes_have_ranges(changes: dict[str, object], field: str) -> None:
    asked = Generation(prompt="owl", size_conditioning=msgspec.structs.replace(AS_MADE, **changes))
    assert [one.field for one in violations(asked).alone] == [f"generation.size_conditioning.{field}"]
