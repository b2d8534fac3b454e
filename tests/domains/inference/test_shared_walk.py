"""Ranges where a refiner computes the last steps: they count the steps of both passes together."""

from typing import Any

from domains.inference.generation import ResolvedGeneration
from domains.inference.loras import ResolvedLora
from domains.inference.pass_plan import PassKind, passes_of
from domains.inference.prompt_plan import prompt_plan
from domains.inference.prompts import Syntax
from domains.inference.refiner import ResolvedRefiner
from tests.domains.inference.on_device.from_picture import from_picture
from tests.domains.inference.on_device.requests import embedded_model, request

REFINER = ResolvedRefiner(
    model_id="r",
    model_sha256="0" * 64,
    family="sdxl_refiner",
    start_ratio=0.75,
    aesthetic_score=6.0,
    negative_aesthetic_score=2.5,
)


def passes(**changes: Any) -> tuple[ResolvedGeneration, ResolvedGeneration]:
    told: dict[str, Any] = {"steps": 8, "refiner": REFINER, **changes}
    wanted = request(embedded_model(), **told)
    base, refiner = passes_of(wanted)
    assert (base.kind, refiner.kind) == (PassKind.FIRST, PassKind.REFINER)
    return base.resolved, refiner.resolved


def test_guidance_stops_once_and_not_once_in_each_pass() -> None:
    base, refiner = passes(guidance_end_ratio=0.5)
    assert (base.guided_steps, len(refiner.guided_steps)) == (range(4), 0)
    base, refiner = passes(guidance_start_ratio=0.5)
    assert (base.guided_steps, refiner.guided_steps) == (range(4, 6), range(2))
    base, refiner = passes(guidance_end_ratio=7 / 8)
    assert (base.guided_steps, refiner.guided_steps) == (range(6), range(1))


def test_a_lora_counts_in_the_bases_part_of_its_range() -> None:
    lora = ResolvedLora(model_id="l", model_sha256="0" * 64, weight=1.0, start_ratio=0.5, end_ratio=1.0)
    base, _ = passes(loras=(lora,))
    assert base.counted(lora.steps_of) == range(4, 6)


def test_a_prompt_changes_at_its_place_among_all_steps() -> None:
    base, refiner = passes(prompt="[apple:pear:0.5]", prompt_syntax=Syntax.A1111)
    assert prompt_plan(base).by_step == (0, 0, 0, 0, 1, 1)
    told = prompt_plan(refiner)
    assert told.by_step == (0, 0)
    assert [one.positives[0].text for one in told.variants] == ["pear"]
    assert prompt_plan(passes(prompt="[apple:pear:7]", prompt_syntax=Syntax.A1111)[1]).by_step == (0, 1)


def test_from_a_picture_the_computed_steps_count() -> None:
    base, refiner = passes(guidance_end_ratio=0.5, init_image=from_picture(0.5))
    assert (base.place, refiner.place) == ((0, 4), (2, 4))
    assert (base.guided_steps, len(refiner.guided_steps)) == (range(2), 0)


def test_a_pass_of_its_own_counts_its_own_steps() -> None:
    (only,) = passes_of(request(embedded_model(), steps=8, guidance_end_ratio=0.5))
    assert (only.resolved.place, only.resolved.guided_steps) == ((0, 8), range(4))
