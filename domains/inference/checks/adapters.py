"""Finds the faults of the adapters in a generation, as far as they do not depend on models."""

from collections.abc import Iterator, Sequence

from domains.errors import Violation
from domains.inference import limits
from domains.inference.checks.bounds import RATIOS, range_faults, within
from domains.inference.generation import Generation
from domains.inference.loras import Lora
from domains.inference.textual_inversions import TextualInversion


def adapter_violations(asked: Generation) -> Iterator[Violation]:
    """Every fault of its LoRAs and textual inversions."""
    yield from lora_violations(asked.loras, "generation.loras", limits.LORAS)
    yield from _textual_inversions(asked.textual_inversions)


def lora_violations(loras: Sequence[Lora], field: str, most: int) -> Iterator[Violation]:
    """Every fault of the LoRAs of a field, of which at most so many are applied."""
    if len(loras) > most:
        message = f"has {len(loras)} LoRAs; at most {most} are applied together"
        yield Violation(field=field, message=message, allowed=f"0..{most} entries")
    for place, lora in enumerate(loras):
        path = f"{field}[{place}]"
        if not lora.model_id:
            yield Violation(field=f"{path}.model_id", message="must not be empty; name the LoRA")
        yield from within("loras.weight", lora.weight, f"{path}.weight")
        yield from range_faults("loras", path, RATIOS, (lora.start_ratio, lora.end_ratio), "the steps end")
        yield from _components(lora, path)


def _components(lora: Lora, path: str) -> Iterator[Violation]:
    named = {""}
    for index, one in enumerate(lora.components):
        here = f"{path}.component_weights[{index}]"
        if one.component_id in named:
            yield Violation(field=f"{here}.component_id", message="must name a component, and each one once")
        named.add(one.component_id)
        yield from within("loras.component_weights.weight", one.weight, f"{here}.weight")
        yield from _blocks(one.block_weights, f"{here}.block_weights")


def _blocks(weights: Sequence[float], path: str) -> Iterator[Violation]:
    if len(weights) > limits.BLOCK_WEIGHTS:
        message = f"has {len(weights)} weights; a component has at most {limits.BLOCK_WEIGHTS} blocks"
        yield Violation(field=path, message=message, allowed=f"0..{limits.BLOCK_WEIGHTS} entries")
    for place, weight in enumerate(weights):
        yield from within("loras.component_weights.block_weights", weight, f"{path}[{place}]")


def _textual_inversions(words: Sequence[TextualInversion]) -> Iterator[Violation]:
    if len(words) > limits.TEXTUAL_INVERSIONS:
        message = f"has {len(words)} textual inversions; at most {limits.TEXTUAL_INVERSIONS} are read together"
        allowed = f"0..{limits.TEXTUAL_INVERSIONS} entries"
        yield Violation(field="generation.textual_inversions", message=message, allowed=allowed)
    for place, word in enumerate(words):
        path = f"generation.textual_inversions[{place}]"
        if not word.model_id:
            yield Violation(field=f"{path}.model_id", message="must not be empty; name the textual inversion")
        yield from _token(word.token, f"{path}.token")
        yield from within("textual_inversions.weight", word.weight, f"{path}.weight")


def _token(token: str, path: str) -> Iterator[Violation]:
    if len(token) > limits.TOKEN_CHARACTERS:
        message = f"has {len(token)} characters; a word has at most {limits.TOKEN_CHARACTERS}"
        yield Violation(field=path, message=message, allowed=f"1..{limits.TOKEN_CHARACTERS} characters")
    if token != token.strip():
        yield Violation(field=path, message="must begin and end with a character that is no space")
