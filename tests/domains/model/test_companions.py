"""What was trained beside the embedded model."""

from pathlib import Path

import domains.model
from domains.model.kind import ModelKind
from domains.model.weights_model import read_component_folder, read_file

COMPANIONS = Path(domains.model.__file__).parent / "companions"


def test_the_lora_is_one_and_can_be_used() -> None:
    found = read_file(COMPANIONS / "emoji-high-contrast.safetensors", "style", "style")
    assert (found.kind, found.problem) == (ModelKind.LORA, "")


def test_the_controlnet_is_one_without_attention_and_fits_both_families_of_its_width() -> None:
    found = read_component_folder(COMPANIONS / "emoji-canny", "edges", Path.resolve)
    assert (found.kind, found.problem) == (ModelKind.CONTROLNET, "")
    assert found.size_bytes < 4_000_000
