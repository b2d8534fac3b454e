"""What of A1111's compositions and edits cannot be computed is refused by name."""

from typing import Any

import msgspec
import pytest

from domains.errors import ErrorReason, InvalidRequest
from domains.inference import limits
from domains.inference import prompt_plan as module
from domains.inference.generation import Generation, ResolvedGeneration, Sampling, WeightedPrompt
from domains.inference.prompt_plan import prompt_plan
from domains.inference.prompts import Syntax
from domains.inference.regions import Rectangle, ResolvedRegion
from domains.inference.resolution.resolve import resolve
from tests.domains.inference.on_device.requests import embedded_model, request


def refused(prompt: str, **changes: Any) -> tuple[ErrorReason, list[str]]:
    asked = Generation(prompt=prompt, prompt_syntax=Syntax.A1111, **changes)
    with pytest.raises(InvalidRequest) as error:
        resolve(asked, embedded_model())
    return error.value.reason, [one.field for one in error.value.violations]


@pytest.mark.parametrize(
    ("prompt", "changes", "field"),
    [
        ("a AND b", {"sampling": Sampling(guidance_scale=1.0)}, "generation.sampling.guidance_scale"),
        ("a AND b", {"blended_prompts": (WeightedPrompt(prompt="c"),)}, "generation.blended_prompts"),
        ("a", {"blended_prompts": (WeightedPrompt(prompt="c AND d"),)}, "generation.blended_prompts[0].prompt"),
        ("a AND b", {"sampling": Sampling(guidance_end_ratio=0.5)}, "generation.sampling.guidance_end_ratio"),
        (" AND ".join("abcdefghijklmnopqrstuvwxyz"), {}, "generation.prompt"),
    ],
)
def test_a_composition_that_cannot_be_computed_is_refused(prompt: str, changes: dict[str, Any], field: str) -> None:
    assert refused(prompt, **changes) == (ErrorReason.UNSUPPORTED_COMBINATION, [field])


def test_parts_beyond_the_limit_are_refused_before_their_steps_are_planned(monkeypatch: pytest.MonkeyPatch) -> None:
    planned = list[ResolvedGeneration]()
    monkeypatch.setattr(module, "prompt_plan", planned.append)
    resolve(Generation(prompt=" AND ".join("abcdefghijklmnop"), prompt_syntax=Syntax.A1111), embedded_model())
    assert len(planned) == 1
    # Each part in each of 1,000 steps: the plan of 5,000 parts took seconds on the event loop.
    assert refused("a AND " * 5000, sampling=Sampling(steps=1000))[1] == ["generation.prompt"]
    assert len(planned) == 1


@pytest.mark.parametrize("sampling", [Sampling(guidance_start_ratio=0.5, guidance_end_ratio=0.5)])
def test_a_range_of_guidance_has_an_end_after_its_start(sampling: Sampling) -> None:
    assert refused("a", sampling=sampling) == (ErrorReason.INVALID_FIELD, ["generation.sampling.guidance_end_ratio"])


def test_guidance_counts_in_a_share_of_the_computed_steps() -> None:
    asked = Generation(prompt="a", sampling=Sampling(steps=10, guidance_start_ratio=0.25, guidance_end_ratio=0.5))
    plan = prompt_plan(resolve(asked, embedded_model()))
    assert [plan.variants[at].guided for at in plan.by_step] == [False] * 3 + [True] * 2 + [False] * 5


def test_too_many_edits_are_refused_by_the_field() -> None:
    many = "[a|b]" * (limits.PROMPT_EDITS + 1)
    assert refused("owl", negative_prompt=many) == (ErrorReason.INVALID_FIELD, ["generation.negative_prompt"])


def test_the_edits_of_all_prompts_count_together() -> None:
    some = "[a|b]" * (limits.PROMPT_EDITS // 2)
    whole = Generation(prompt=some, negative_prompt=some, prompt_syntax=Syntax.A1111)
    assert resolve(whole, embedded_model())
    assert refused(some, negative_prompt=some + "[a|b]")[1] == ["generation.negative_prompt"]
    half = Rectangle(left_px=0, top_px=0, width_px=64, height_px=64)
    regions = tuple(ResolvedRegion(rectangle=half, prompt=text) for text in (some, "[a|b]"))
    asked = request(embedded_model(), prompt=some, prompt_syntax=Syntax.A1111, regions=regions)
    assert prompt_plan(msgspec.structs.replace(asked, regions=regions[:1]))
    with pytest.raises(InvalidRequest) as error:
        prompt_plan(asked)
    assert [one.field for one in error.value.violations] == ["generation.regions[1].prompt"]


def test_a_thousand_weights_are_no_edits() -> None:
    assert resolve(Generation(prompt="(a:1.1)" * 1000, prompt_syntax=Syntax.A1111), embedded_model())


def test_other_syntaxes_know_no_edits() -> None:
    for syntax in (Syntax.PLAIN, Syntax.COMFYUI):
        plan = prompt_plan(request(embedded_model(), prompt="[a:b:0.5] AND c", prompt_syntax=syntax))
        assert len(plan.variants) == 1
        assert plan.weights == (1.0,)


def test_a_text_that_becomes_too_many_different_ones_is_refused_by_its_field() -> None:
    many = " ".join(f"[{at}:x:{at}]" for at in range(2, 67))
    with pytest.raises(InvalidRequest, match=r"more than 64 different texts, .*; write fewer, or split") as error:
        prompt_plan(request(embedded_model(), prompt=many, prompt_syntax=Syntax.A1111, steps=100))
    assert [one.field for one in error.value.violations] == ["generation.prompt"]
    few = " ".join(f"[{at}:x:{at}]" for at in range(2, 65))
    plan = prompt_plan(request(embedded_model(), prompt=few, prompt_syntax=Syntax.A1111, steps=100))
    assert len(plan.variants) == 64


def test_encoders_that_read_the_same_text_count_its_edits_once() -> None:
    some = "[a|b]" * limits.PROMPT_EDITS
    sdxl = request(embedded_model(), family="sdxl", prompt=some, prompt_syntax=Syntax.A1111)
    assert len(prompt_plan(sdxl).variants) == 2
    again = msgspec.structs.replace(sdxl, second_prompt="[a|b]")
    with pytest.raises(InvalidRequest) as error:
        prompt_plan(again)
    assert [one.field for one in error.value.violations] == ["generation.second_prompt"]


def test_each_text_has_its_field_and_an_empty_one_that_of_the_first() -> None:
    sd3 = request(embedded_model(), family="sd3", prompt="a", negative_prompt="n", third_prompt="c")
    positive, negative = prompt_plan(sd3).encoded
    assert positive.fields == ("prompt", "prompt", "third_prompt")
    assert negative.fields == ("negative_prompt",) * 3
    told = msgspec.structs.replace(sd3, second_negative_prompt="m", second_prompt="b", third_prompt="")
    assert [one.fields for one in prompt_plan(told).encoded] == [
        ("prompt", "second_prompt", "prompt"),
        ("negative_prompt", "second_negative_prompt", "negative_prompt"),
    ]


def test_an_edit_that_comes_too_late_is_told_with_its_field() -> None:
    late = request(embedded_model(), prompt="an owl [a:b:4] [c:d:3]", prompt_syntax=Syntax.A1111, steps=4)
    (beyond,) = prompt_plan(late).beyond
    assert (beyond.field, "'[a:b:4]' changes at step 4 or later" in beyond.message) == ("generation.prompt", True)
