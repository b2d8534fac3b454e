"""Which prompts a generation encodes, and which of them count in each step."""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import msgspec
from msgspec.structs import replace

from domains.errors import ErrorReason, InvalidRequest, Violation, excerpt
from domains.inference import limits
from domains.inference.generation import ResolvedGeneration
from domains.inference.prompts import FieldPrompt, Prompt, Schedule, Syntax, TooManyEdits, composed, edits_of, scheduled
from domains.model.families import FAMILIES


class RegionVariant(msgspec.Struct, frozen=True, kw_only=True):
    """The prompts of a region in some steps."""

    place: int
    """Its place among the generation's regions."""
    positive: Prompt
    negative: Prompt


class PromptVariant(msgspec.Struct, frozen=True, kw_only=True):
    """The prompts of some steps."""

    positives: tuple[Prompt, ...]
    """More than one: they guide together, by `PromptPlan.weights`."""
    blended: tuple[Prompt, ...] = ()
    """They blend with the positive one."""
    negative: Prompt
    guided: bool = True
    """Whether guidance counts in these steps."""
    regions: tuple[RegionVariant, ...] = ()
    """Those that count in these steps."""


class PromptPlan(msgspec.Struct, frozen=True, kw_only=True):
    """The prompts of all steps."""

    weights: tuple[float, ...]
    """Of the positive prompts that AND joins."""
    variants: tuple[PromptVariant, ...]
    by_step: tuple[int, ...]
    """The variant of each computed step."""
    encoded: tuple[FieldPrompt, ...]
    """What the text encoders read; the negative prompt only where guidance makes use of it."""
    beyond: tuple[Violation, ...]
    """Edits by step that never happen."""


class _Regional(msgspec.Struct, frozen=True, kw_only=True):
    """A region in each step."""

    place: int
    steps: range
    """Those in which it counts."""
    positive: "_Part"
    negative: "_Part"
    """The generation's, if it has none of its own."""

    def at(self, step: int) -> RegionVariant:
        """Its prompts in a step."""
        return RegionVariant(place=self.place, positive=self.positive.at(step), negative=self.negative.at(step))


class _Part(msgspec.Struct, frozen=True, kw_only=True):
    """One prompt in each step."""

    source: FieldPrompt
    prompts: tuple[Prompt, ...]
    """The different ones."""
    by_step: tuple[int, ...]
    beyond: tuple[Violation, ...]

    def at(self, step: int) -> Prompt:
        """The prompt of a step."""
        return self.prompts[self.by_step[step]]


def prompt_plan(resolved: ResolvedGeneration) -> PromptPlan:
    """The plan of a generation. Raises INVALID_FIELD for more edits by step than are computed."""
    parts, weights = composed_of(resolved)
    read = FAMILIES[resolved.family].reads_negative(resolved.guidance_scale)
    positives = [FieldPrompt(fields=_fields("", resolved), prompt=one) for one in parts]
    blended = [
        FieldPrompt(fields=(f"blended_prompts[{place}].prompt",), prompt=prompt)
        for place, (prompt, _) in enumerate(resolved.blended)
    ]
    negative = FieldPrompt(fields=_fields("negative_", resolved), prompt=resolved.negative)
    _check_edits([*positives, *blended, negative, *_of_regions(resolved)])
    begin, whole = resolved.place
    steps = max(1, whole)
    told = [_over(one, steps) for one in (*positives, *blended)]
    last = _over(negative, steps) if read else _still(negative, steps)
    guided = resolved.guided_steps
    regional = [*_regional(resolved, steps, last, read=read)]
    own = [one.positive for one in regional] + [one.negative for one in regional if one.negative is not last]
    everywhere = [
        (*choice, step - begin in guided, tuple(one.at(step) for one in regional if step in one.steps))
        for step, choice in enumerate(zip(*(one.by_step for one in (*told, last)), strict=True))
    ]
    choices = everywhere[begin : begin + max(1, resolved.computed_steps)]
    different = {choice: place for place, choice in enumerate(dict.fromkeys(choices))}
    return PromptPlan(
        weights=weights,
        variants=tuple(_variant((*told, last), one, len(positives)) for one in different),
        by_step=tuple(different[one] for one in choices),
        encoded=tuple(
            replace(part.source, prompt=prompt)
            for part in (*told, *([last] if read else []), *own)
            for prompt in part.prompts
        ),
        beyond=tuple(fault for part in (*told, last, *own) for fault in part.beyond),
    )


def _of_regions(resolved: ResolvedGeneration) -> Iterator[FieldPrompt]:
    for place, region in enumerate(resolved.regions):
        for name in ("prompt", "negative_prompt"):
            yield FieldPrompt(fields=(f"regions[{place}].{name}",), prompt=resolved.prompt_of(getattr(region, name)))


def _check_edits(sources: Iterable[FieldPrompt]) -> None:
    """Raise INVALID_FIELD for more edits by step than are computed. Encoders that read the same text count once."""
    count, seen = 0, set[tuple[str, str]]()
    for source in sources:
        for place, text in enumerate(source.prompt.texts if source.prompt.syntax is Syntax.A1111 else ()):
            field = source.field_of(place)
            count += 0 if (field, text) in seen else len(edits_of(text))
            seen.add((field, text))
            if count > limits.PROMPT_EDITS:
                message = f"with the prompts before it, it has {count} edits by step; write fewer"
                violation = Violation(
                    field=f"generation.{field}", message=message, allowed=f"0..{limits.PROMPT_EDITS} in all prompts"
                )
                raise InvalidRequest([violation])


def _regional(resolved: ResolvedGeneration, steps: int, negative: _Part, *, read: bool) -> Iterator[_Regional]:
    """The regions that count in some step. `negative`: the generation's; `read`: whether guidance reads one."""

    def part(place: int, name: str, text: str) -> _Part:
        return _over(FieldPrompt(fields=(f"regions[{place}].{name}",), prompt=resolved.prompt_of(text)), steps)

    for place, region in enumerate(resolved.regions):
        if not (within := region.steps_of(steps)):
            continue
        own = part(place, "negative_prompt", region.negative_prompt) if read and region.negative_prompt else negative
        yield _Regional(place=place, steps=within, positive=part(place, "prompt", region.prompt), negative=own)


def composed_of(resolved: ResolvedGeneration) -> tuple[Sequence[Prompt], tuple[float, ...]]:
    """The positive prompts that guide together, with their weights."""
    if resolved.prompt_syntax is not Syntax.A1111:
        return [resolved.positive], (1.0,)
    parts = composed(resolved.prompt)
    others = resolved.positive.texts[1:]
    return [replace(resolved.positive, texts=(text, *others)) for text, _ in parts], tuple(one for _, one in parts)


def check_prompts(resolved: ResolvedGeneration) -> None:
    """Raise UNSUPPORTED_COMBINATION for a composition that cannot be computed, INVALID_FIELD as `prompt_plan`."""
    if resolved.prompt_syntax is not Syntax.A1111:
        return
    # The work of a plan is that of all parts in all steps.
    if len(composed_of(resolved)[0]) <= limits.PROMPT_PARTS:
        prompt_plan(resolved)
    if wrong := list(_composition_faults(resolved)):
        raise InvalidRequest(wrong, ErrorReason.UNSUPPORTED_COMBINATION)


def _composition_faults(resolved: ResolvedGeneration) -> Iterator[Violation]:
    parts, _ = composed_of(resolved)
    for place, (prompt, _) in enumerate(resolved.blended):
        if len(composed(prompt.text)) > 1:
            message = "a prompt that blends has no parts that AND joins; write AND in `prompt`, or quote the word"
            yield Violation(field=f"generation.blended_prompts[{place}].prompt", message=message)
    if len(parts) == 1:
        return
    if len(parts) > limits.PROMPT_PARTS:
        message = f"AND joins {len(parts)} prompts; at most {limits.PROMPT_PARTS} guide together"
        yield Violation(field="generation.prompt", message=message)
    named = ("second_prompt", "third_prompt", "blended_prompts")
    for name in [name for name in named if getattr(resolved, name)]:
        message = "cannot be told for each of the prompts that AND joins; leave it out, or write no AND"
        yield Violation(field=f"generation.{name}", message=message)
    if len(resolved.guided_steps) < resolved.computed_steps:
        message = "AND adds guidances up in every step; leave the range of guidance out, or write no AND"
        yield Violation(field="generation.sampling.guidance_end_ratio", message=message)
    if resolved.guidance_rescale:
        message = "AND adds several guidances up, whose contrast has no measure; leave it out, or write no AND"
        yield Violation(field="generation.sampling.guidance_rescale", message=message)
    if not FAMILIES[resolved.family].reads_negative(resolved.guidance_scale):
        message = "AND adds guidances up, and guidance is off at this scale; take more than 1, or write no AND"
        yield Violation(field="generation.sampling.guidance_scale", message=message, allowed="more than 1")


def _over(source: FieldPrompt, steps: int) -> _Part:
    """A prompt in each step."""
    if source.prompt.syntax is not Syntax.A1111:
        return _still(source, steps)
    schedules = [_scheduled(source.field_of(place), text, steps) for place, text in enumerate(source.prompt.texts)]
    choices = list(zip(*(one.by_step for one in schedules), strict=True))
    different = {choice: place for place, choice in enumerate(dict.fromkeys(choices))}
    return _Part(
        source=source,
        prompts=tuple(
            replace(source.prompt, texts=tuple(one.texts[at] for one, at in zip(schedules, chosen, strict=True)))
            for chosen in different
        ),
        by_step=tuple(different[one] for one in choices),
        beyond=tuple(
            Violation(
                field=f"generation.{source.field_of(place)}",
                message=f"{excerpt(edit)!r} changes at step {steps} or later, which is the last one: it has no effect",
            )
            for place, one in enumerate(schedules)
            for edit in one.beyond
        ),
    )


def _still(source: FieldPrompt, steps: int) -> _Part:
    return _Part(source=source, prompts=(source.prompt,), by_step=(0,) * steps, beyond=())


def _scheduled(field: str, text: str, steps: int) -> Schedule:
    try:
        return scheduled(text, steps)
    except TooManyEdits as error:
        message = f"{error}; write fewer, or split the generation"
        raise InvalidRequest([Violation(field=f"generation.{field}", message=message)]) from None


def _variant(parts: Sequence[_Part], choice: Sequence[Any], positives: int) -> PromptVariant:
    *places, guided, regions = choice
    *chosen, negative = (part.prompts[at] for part, at in zip(parts, places, strict=True))
    return PromptVariant(
        guided=bool(guided),
        positives=tuple(chosen[:positives]),
        blended=tuple(chosen[positives:]),
        negative=negative,
        regions=regions,
    )


def _fields(kind: str, resolved: ResolvedGeneration) -> tuple[str, ...]:
    """The field of the text for each encoder: an empty one stands for the first."""
    first = f"{kind}prompt"
    others = (f"{number}_{kind}prompt" for number in ("second", "third"))
    return (first, *(name if getattr(resolved, name) else first for name in others))
