"""Whether a model can be added to a base is told from what scans found, before any job."""

from pathlib import Path

import pytest
from msgspec.structs import replace

from domains.errors import ErrorReason
from domains.model.base_fit import base_findings
from domains.model.detected_model import blank_model
from domains.model.kind import ModelKind
from domains.model.model import Model, ModelLayout, ModelState
from domains.model.weights_model import read_file
from tests.domains.model.headers import write_published

BASE = replace(
    blank_model(Path(), "base", "base", ModelLayout.DIFFUSERS),
    kind=ModelKind.CHECKPOINT,
    family="sd1",
    state=ModelState.AVAILABLE,
)


def a_model(kind: ModelKind, *compatible: str) -> Model:
    return replace(blank_model(Path(), "one", "one", ModelLayout.FILE), kind=kind, compatible_families=compatible)


@pytest.mark.parametrize(
    ("model", "base", "reasons"),
    [
        (a_model(ModelKind.LORA, "sd1"), BASE, []),
        (a_model(ModelKind.LORA, "sdxl"), BASE, [ErrorReason.MODEL_INCOMPATIBLE]),
        (a_model(ModelKind.CONTROLNET, "sd2"), BASE, [ErrorReason.MODEL_INCOMPATIBLE]),
        (a_model(ModelKind.CONTROLNET, "sd1", "sd2"), BASE, []),
        (a_model(ModelKind.LORA), BASE, [None]),
        (BASE, BASE, [ErrorReason.MODEL_INCOMPATIBLE]),
        (a_model(ModelKind.LORA, "sd1"), a_model(ModelKind.VAE, "sd1"), [ErrorReason.MODEL_INCOMPATIBLE]),
        (
            a_model(ModelKind.VAE, "sd1"),
            replace(BASE, state=ModelState.CORRUPT, problem="it is cut off"),
            [ErrorReason.MODEL_CORRUPT],
        ),
    ],
)
def test_what_does_not_go_together_is_told_with_both_families(
    model: Model, base: Model, reasons: list[ErrorReason | None]
) -> None:
    found = list(base_findings(model, base))
    assert [one.reason for one in found] == reasons
    assert {one.field for one in found} <= {"base_model_id"}


@pytest.mark.parametrize(("family", "fits"), [("sd1", True), ("sd2", False), ("sdxl", False)])
def test_a_controlnet_768_wide_fits_no_wider_model(tmp_path: Path, family: str, fits: bool) -> None:
    control = read_file(write_published(tmp_path / "canny.safetensors", "sd1_controlnet"), "canny", "canny")
    reasons = [one.reason for one in base_findings(control, replace(BASE, family=family))]
    assert reasons == ([] if fits else [ErrorReason.MODEL_INCOMPATIBLE])
