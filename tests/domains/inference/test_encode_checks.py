"""What cannot be asked of a picture's file is refused with its field."""

from typing import Any

import pytest
from msgspec.structs import replace

from domains.errors import ErrorReason, InvalidRequest
from domains.imaging import MEDIA_TYPES
from domains.imaging.jpeg import PARAMETERS_LIMIT_BYTES
from domains.inference import limits
from domains.inference.checks.request import violations
from domains.inference.generation import EncodeOptions, Generation, ManifestDetail
from domains.inference.resolution.resolve import resolve
from tests.domains.inference.on_device.requests import embedded_model


def refusal(prompt: str = "owl", **options: Any) -> InvalidRequest:
    error = violations(Generation(prompt=prompt, output=EncodeOptions(**options))).error()
    assert error is not None
    return error


@pytest.mark.parametrize(
    ("options", "field"),
    [
        ({"media_type": "image/jpeg", "lossless": True}, "lossless"),
        ({"media_type": "image/webp", "lossless": True, "quality": 90}, "quality"),
        ({"media_type": "image/webp", "bit_depth": 8}, "bit_depth"),
        ({"media_type": "image/png", "bit_depth": 10}, "bit_depth"),
        ({"media_type": "image/avif", "bit_depth": 16}, "bit_depth"),
        ({"media_type": "image/avif", "quality": 101}, "quality"),
    ],
)
def test_a_field_that_the_format_lacks_is_named(options: dict[str, Any], field: str) -> None:
    refused = refusal(**options)
    assert [violation.field for violation in refused.violations] == [f"generation.output.{field}"]
    assert refused.reason is ErrorReason.INVALID_FIELD


@pytest.mark.parametrize(
    ("options", "quality"),
    [
        ({"media_type": "image/png"}, None),
        ({"media_type": "image/jpeg"}, limits.DEFAULT_QUALITY),
        ({"media_type": "image/jpeg", "quality": 7}, 7),
        ({"media_type": "image/webp", "lossless": True}, None),
    ],
)
def test_a_lossy_file_has_the_usual_quality_unless_told_otherwise(options: dict[str, Any], quality: int | None) -> None:
    asked = EncodeOptions(**options)
    assert resolve(Generation(prompt="owl", output=asked), embedded_model()).output == replace(asked, quality=quality)


@pytest.mark.parametrize("manifest", [ManifestDetail.RECIPE, ManifestDetail.NONE])
def test_parameters_beside_a_manifest_without_prompts_are_a_clash(manifest: ManifestDetail) -> None:
    refused = refusal(a1111_parameters=True, manifest=manifest)
    assert [violation.field for violation in refused.violations] == ["generation.output.a1111_parameters"]
    assert refused.reason is ErrorReason.UNSUPPORTED_COMBINATION


def test_prompts_that_no_jpeg_can_hold_as_parameters_are_refused_before_anything_is_computed() -> None:
    prompt = "x" * (limits.JPEG_PARAMETERS_BYTES // 2 + 1)
    assert len(prompt) < limits.PROMPT_BYTES
    refused = refusal(prompt, a1111_parameters=True, media_type="image/jpeg")
    assert [violation.field for violation in refused.violations] == ["generation.output.a1111_parameters"]
    assert violations(Generation(prompt=prompt, output=EncodeOptions(a1111_parameters=True))).error() is None


def test_the_room_for_settings_behind_the_prompts_is_large() -> None:
    assert PARAMETERS_LIMIT_BYTES - limits.JPEG_PARAMETERS_BYTES > 2 * 2048


def test_the_limits_are_those_of_the_encoders() -> None:
    assert set(limits.LOSSLESS) == {name for name, known in MEDIA_TYPES.items() if known.lossless}
