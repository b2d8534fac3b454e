"""Turns a request's prompts into the conditions of its denoiser."""

from dataclasses import dataclass

from domains.errors import ErrorReason, InvalidRequest, Violation
from domains.inference.generation import ResolvedGeneration
from domains.inference.on_device.adapters import NO_ADAPTERS, Adapters, Share, beside
from domains.inference.on_device.blend import blended, of_one_length
from domains.inference.on_device.family import Conditions, EncodedPrompt, Family
from domains.inference.on_device.prompt_cache import PromptCache
from domains.inference.prompts import LongPrompt, Prompt
from domains.model.families import FAMILIES
from domains.model.on_device import OnDeviceModel
from domains.progress import Degraded


@dataclass(frozen=True, kw_only=True)
class Conditioned:
    """The conditions, and what their computation showed."""

    conditions: Conditions
    cache_hits: int
    degradations: tuple[Degraded, ...]


def condition(
    loaded: OnDeviceModel,
    family: Family,
    resolved: ResolvedGeneration,
    prompts: PromptCache,
    adapters: Adapters = NO_ADAPTERS,
) -> Conditioned:
    """Encode the prompt, and the negative prompt where the family reads it at this guidance."""
    with beside([Share(adapters)]):
        return _condition(loaded, family, resolved, prompts, adapters.of_texts)


def _condition(
    loaded: OnDeviceModel, family: Family, resolved: ResolvedGeneration, prompts: PromptCache, of_texts: str
) -> Conditioned:
    guided = FAMILIES[loaded.family].reads_negative(resolved.guidance_scale)
    hits = 0

    def encode(prompt: Prompt) -> EncodedPrompt:
        nonlocal hits
        found, hit = prompts.get((loaded.model.id, of_texts, prompt), lambda: family.encode(prompt))
        hits += hit
        return found

    texts = {"prompt": resolved.positive}
    texts |= {f"blended_prompts[{place}].prompt": one for place, (one, _) in enumerate(resolved.blended)}
    texts |= {"negative_prompt": resolved.negative} if guided else {}
    encoded = {field: encode(prompt) for field, prompt in texts.items()}
    long = {field: one for field, one in encoded.items() if one.tokens > one.tokens_read}
    if resolved.long_prompt is LongPrompt.REFUSE and long:
        raise InvalidRequest([_too_long(field, one) for field, one in long.items()])
    halves = list(encoded.values())
    if FAMILIES[loaded.family].reads_windows:
        halves = of_one_length(halves, lambda: encode(resolved.empty))
    shares = [1.0, *(share for _, share in resolved.blended)]
    conditions = family.conditions(
        blended(list(zip(halves, shares, strict=False))),
        halves[-1] if guided else None,
        resolved.guidance_scale,
        (resolved.width_px, resolved.height_px),
    )
    cut = tuple(_cut(field, one) for field, one in long.items())
    return Conditioned(conditions=conditions, cache_hits=hits, degradations=cut)


def _too_long(field: str, prompt: EncodedPrompt) -> Violation:
    message = f"has {prompt.tokens} tokens, and the model reads {prompt.tokens_read}; shorten it, or let it be chunked"
    return Violation(field=f"generation.{field}", message=message)


def _cut(field: str, prompt: EncodedPrompt) -> Degraded:
    detail = f"{field} has {prompt.tokens} tokens; the model reads {prompt.tokens_read}, the rest was left out"
    return Degraded(
        kind="prompt_truncated", reason=ErrorReason.INVALID_FIELD, detail=detail, field=f"generation.{field}"
    )
