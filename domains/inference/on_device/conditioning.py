"""Turns a request's prompts into the conditions of its denoiser."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

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
    renew: Callable[[Adapters], Conditions]
    """Computes the conditions with other adapters beside the denoiser; the text encoders do not run again."""
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
        read = _read(loaded, family, resolved, prompts, adapters.of_texts)

    def renew(present: Adapters) -> Conditions:
        with beside([Share(present)]):
            size_px = resolved.width_px, resolved.height_px
            return family.conditions(read.positive, read.negative, resolved.guidance_scale, size_px)

    return Conditioned(
        conditions=renew(adapters), renew=renew, cache_hits=read.cache_hits, degradations=read.degradations
    )


class _Read(NamedTuple):
    """The prompts, encoded."""

    positive: EncodedPrompt
    negative: EncodedPrompt | None
    cache_hits: int
    degradations: tuple[Degraded, ...]


def _read(
    loaded: OnDeviceModel, family: Family, resolved: ResolvedGeneration, prompts: PromptCache, of_texts: str
) -> _Read:
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
    positive = blended(list(zip(halves, shares, strict=False)))
    cut = tuple(_cut(field, one) for field, one in long.items())
    return _Read(positive, halves[-1] if guided else None, hits, cut)


def _too_long(field: str, prompt: EncodedPrompt) -> Violation:
    message = f"has {prompt.tokens} tokens, and the model reads {prompt.tokens_read}; shorten it, or let it be chunked"
    return Violation(field=f"generation.{field}", message=message)


def _cut(field: str, prompt: EncodedPrompt) -> Degraded:
    detail = f"{field} has {prompt.tokens} tokens; the model reads {prompt.tokens_read}, the rest was left out"
    return Degraded(
        kind="prompt_truncated", reason=ErrorReason.INVALID_FIELD, detail=detail, field=f"generation.{field}"
    )
