"""LoRAs and textual inversions of a request: every fault is named with its field before there is a job."""

from collections.abc import Mapping
from pathlib import Path

import pytest
from msgspec.structs import replace

from domains.errors import InvalidRequest
from domains.inference.checks.request import violations
from domains.inference.generation import Generation
from domains.inference.lora_blocks import blocks_of
from domains.inference.loras import Lora, LoraComponent
from domains.inference.resolution.adapters import resolved_loras
from domains.inference.textual_inversions import TextualInversion
from domains.model.component_config import read_config
from domains.model.detected_model import blank_model
from domains.model.kind import ModelKind
from domains.model.model import FileStamp, Model, ModelLayout, ModelState
from tests.domains.inference.on_device.requests import embedded_model


def entry(name: str) -> Model:
    """A LoRA in the catalogue."""
    blank = blank_model(Path(f"/models/{name}.safetensors"), name, name, ModelLayout.FILE)
    stamp = FileStamp(path=f"{name}.safetensors", real=blank.folder, sha256="0" * 64)
    return replace(blank, kind=ModelKind.LORA, state=ModelState.AVAILABLE, files=(stamp,))


def asked(lora: Lora) -> Generation:
    return Generation(prompt="p", loras=(lora,))


def with_blocks(component: str, count: int) -> Generation:
    own = LoraComponent(component_id=component, block_weights=(0.5,) * count)
    return asked(Lora(model_id="styled", components=(own,)))


@pytest.mark.parametrize("component", ["unet", "text_encoder"])
def test_a_component_takes_as_many_block_weights_as_it_has_blocks(component: str) -> None:
    model = embedded_model()
    count = len(blocks_of(model.family, component, read_config(model, component, "config.json")))
    assert count > 1
    (found,) = resolved_loras(with_blocks(component, count).loras, model, [entry("styled")], "generation.loras")
    assert (found.weight_of(component, 1), found.weight_of(component)) == (0.5, 1.0)
    for wrong in (1, count - 1, count + 1):
        with pytest.raises(InvalidRequest) as refused:
            resolved_loras(with_blocks(component, wrong).loras, model, [entry("styled")], "generation.loras")
        (violation,) = refused.value.violations
        assert violation.field == "generation.loras[0].component_weights[0].block_weights"
        assert f"{component} of model emoji-sd has {count} blocks" in violation.message


def worded(token: str, weight: float | None = None) -> Generation:
    one = TextualInversion(model_id="m", token=token, weight=weight)
    return Generation(prompt="p", textual_inversions=(one,))


FAULTS: Mapping[str, tuple[Generation, str]] = {
    "end_before_start": (asked(Lora(model_id="m", start_ratio=0.5, end_ratio=0.4)), "loras[0].end_ratio"),
    "end_at_start": (asked(Lora(model_id="m", start_ratio=0.5, end_ratio=0.5)), "loras[0].end_ratio"),
    "start_at_the_end": (asked(Lora(model_id="m", start_ratio=1.0)), "loras[0].start_ratio"),
    "end_at_the_start": (asked(Lora(model_id="m", end_ratio=0.0)), "loras[0].end_ratio"),
    "not_a_number": (asked(Lora(model_id="m", start_ratio=float("nan"))), "loras[0].start_ratio"),
    "too_many_blocks": (with_blocks("unet", 65), "loras[0].component_weights[0].block_weights"),
    "a_block_beyond": (
        asked(Lora(model_id="m", components=(LoraComponent(component_id="unet", block_weights=(1.0, 11.0)),))),
        "loras[0].component_weights[0].block_weights[1]",
    ),
    "no_word_named": (
        Generation(prompt="p", textual_inversions=(TextualInversion(model_id=""),)),
        "textual_inversions[0].model_id",
    ),
    "too_many_words": (
        Generation(prompt="p", textual_inversions=(TextualInversion(model_id="m"),) * 33),
        "textual_inversions",
    ),
    "a_word_too_long": (worded("x" * 256), "textual_inversions[0].token"),
    "a_word_with_a_space_before": (worded(" x"), "textual_inversions[0].token"),
    "a_word_with_a_space_behind": (worded("x "), "textual_inversions[0].token"),
    "too_light_a_word": (worded("x", -0.1), "textual_inversions[0].weight"),
    "too_heavy_a_word": (worded("x", 2.1), "textual_inversions[0].weight"),
}


def test_as_many_blocks_and_words_as_the_limits_are_taken() -> None:
    assert violations(with_blocks("unet", 64)).alone == ()
    assert violations(worded("x" * 255, 2.0)).alone == violations(worded("a b", 0.0)).alone == ()
    words = (TextualInversion(model_id="m"),) * 32
    assert violations(Generation(prompt="p", textual_inversions=words)).alone == ()


@pytest.mark.parametrize("fault", list(FAULTS))
def test_a_fault_is_named_by_its_field(fault: str) -> None:
    generation, field = FAULTS[fault]
    assert [one.field for one in violations(generation).alone] == [f"generation.{field}"]


@pytest.mark.parametrize(
    ("start", "end", "count", "steps"),
    [
        (0.0, 1.0, 4, range(4)),
        (0.5, 1.0, 4, range(2, 4)),
        (0.0, 0.3, 10, range(3)),
        (0.3, 0.7, 10, range(3, 7)),
        (0.1, 0.2, 4, range(1, 1)),
        (0.999, 1.0, 1000, range(999, 1000)),
    ],
)
def test_a_range_that_ends_where_another_begins_shares_no_step_with_it(
    start: float, end: float, count: int, steps: range
) -> None:
    lora = resolved_loras(
        [Lora(model_id="styled", start_ratio=start, end_ratio=end)], embedded_model(), [entry("m")], "generation.loras"
    )
    assert lora[0].steps_of(count) == steps
