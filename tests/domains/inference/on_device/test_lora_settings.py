"""The scale of a LoRA's layers by peft's settings in its file."""

import pytest

from domains.errors import ErrorReason, FailedPrecondition
from domains.inference.on_device.adapters.lora_parts import scale_by_settings

PATH = "down_blocks.0.attn1.to_q"


def scale(key: str, path: str = PATH) -> float:
    return scale_by_settings({"unet.r": 4, "unet.lora_alpha": 8, "unet.alpha_pattern": {key: 2}}, "unet", path, 4)


@pytest.mark.parametrize("key", ["to_q", "attn1.to_q", PATH, f"^{PATH}", "attn1\\.to_q"])
def test_a_key_stands_for_the_layers_whose_path_ends_in_it(key: str) -> None:
    assert scale(key) == 0.5
    assert scale(key, "up_blocks.0.attn1.to_k") == 2.0


@pytest.mark.parametrize("key", ["o_q", "^attn1.to_q"])
def test_a_key_stands_for_whole_names(key: str) -> None:
    assert scale(key) == 2.0


@pytest.mark.parametrize("key", ["(a+)+$", "to_q|to_k", ".*", ""])
def test_a_regular_expression_of_a_file_is_not_run(key: str) -> None:
    with pytest.raises(FailedPrecondition) as refused:
        scale(key)
    assert refused.value.reason is ErrorReason.MODEL_INCOMPATIBLE
