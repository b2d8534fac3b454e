"""Turns a request's prompts into the conditions of its denoiser."""

from dataclasses import dataclass

from domains.errors import ErrorReason
from domains.inference.generation import ResolvedGeneration
from domains.inference.on_device.adapters import NO_ADAPTERS, Adapters, Share, beside
from domains.inference.on_device.family import Conditions, EncodedPrompt, Family
from domains.inference.on_device.prompt_cache import PromptCache
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
    texts = {"prompt": resolved.prompt} | ({"negative_prompt": resolved.negative_prompt} if guided else {})
    encoded: dict[str, EncodedPrompt] = {}
    hits = 0
    for field, text in texts.items():
        encoded[field], hit = prompts.get((loaded.model.id, of_texts, text), lambda text=text: family.encode(text))
        hits += hit
    conditions = family.conditions(
        encoded["prompt"],
        encoded.get("negative_prompt"),
        resolved.guidance_scale,
        (resolved.width_px, resolved.height_px),
    )
    cut = tuple(_cut(field, prompt) for field, prompt in encoded.items() if prompt.tokens > prompt.tokens_read)
    return Conditioned(conditions=conditions, cache_hits=hits, degradations=cut)


def _cut(field: str, prompt: EncodedPrompt) -> Degraded:
    detail = f"{field} has {prompt.tokens} tokens; the model reads {prompt.tokens_read}, the rest was left out"
    return Degraded(
        kind="prompt_truncated", reason=ErrorReason.INVALID_FIELD, detail=detail, field=f"generation.{field}"
    )
