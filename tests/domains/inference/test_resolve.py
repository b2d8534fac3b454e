"""Resolving: what a request leaves open is the model's choice, and a model's choice is checked too."""

import pytest

from domains.errors import ErrorReason, InvalidRequest
from domains.inference.generation import Generation
from domains.inference.resolve import resolve
from domains.model.model import Model, ModelState


def a_model(width_px: int, height_px: int) -> Model:
    return Model(
        id="m",
        display_name="M",
        family="sd1",
        folder="/m",
        components=(),
        size_bytes=1,
        sha256="0" * 64,
        state=ModelState.AVAILABLE,
        native_width_px=width_px,
        native_height_px=height_px,
    )


def test_the_models_own_size_is_the_default() -> None:
    resolved = resolve(Generation(prompt="an owl"), a_model(512, 640))
    assert (resolved.width_px, resolved.height_px) == (512, 640)


@pytest.mark.parametrize("edge_px", [0, 56, 8192, 65_536, 516])
def test_a_model_without_a_size_that_can_be_made_asks_for_one(edge_px: int) -> None:
    with pytest.raises(InvalidRequest) as told:
        resolve(Generation(prompt="an owl"), a_model(edge_px, edge_px))
    assert told.value.reason is ErrorReason.UNSUPPORTED_COMBINATION
    assert [one.field for one in told.value.violations] == ["generation.width_px", "generation.height_px"]
    asked = Generation(prompt="an owl", width_px=64, height_px=72)
    assert resolve(asked, a_model(edge_px, edge_px)).height_px == 72
