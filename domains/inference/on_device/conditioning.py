"""Turns a request's prompts into the conditions of its denoiser."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple, cast

from torch import Tensor

from domains.errors import ErrorReason, InvalidRequest, Violation
from domains.inference.generation import ResolvedGeneration
from domains.inference.on_device.adapters import NO_ADAPTERS, Adapters, Share, beside
from domains.inference.on_device.areas import shares_of
from domains.inference.on_device.blend import blended, of_one_length
from domains.inference.on_device.composed import together
from domains.inference.on_device.controls import GuidingNet
from domains.inference.on_device.editing import Seen, edited
from domains.inference.on_device.families.family import Conditions, EncodedPrompt, Family
from domains.inference.on_device.networks.unet import UNet
from domains.inference.on_device.prompt_cache import PromptCache
from domains.inference.on_device.regions import RegionPrompts, over_the_picture, with_regions
from domains.inference.on_device.rows import RowConditions
from domains.inference.prompt_plan import PromptVariant, prompt_plan
from domains.inference.prompts import LongPrompt, Prompt
from domains.model.families import FAMILIES
from domains.model.on_device import OnDeviceModel
from domains.progress import Degraded

_ReadPrompt = Callable[[EncodedPrompt, EncodedPrompt | None], RowConditions]
"""What a network reads of a prompt and a negative one, which is None without guidance."""


class Renew:
    """Computes the conditions of a step with its prompts and adapters; the text encoders do not run again."""

    def __init__(
        self,
        family: Family,
        resolved: ResolvedGeneration,
        read: "_Read",
        maps: Sequence[Tensor] = (),
        pictures: Sequence[Tensor] = (),
    ) -> None:
        """`maps`: see `region_maps`. `pictures`: latents of those that the model sees."""
        self._family, self._resolved, self._read, self._maps = family, resolved, read, maps
        self._seen = Seen(pictures=pictures, image_guidance=resolved.image_guidance_scale)
        told = resolved.size_conditioning
        scores = resolved.aesthetic_scores
        self._sizes: dict[str, Any] = {} if told is None else {"told": told}
        self._sizes |= {} if scores is None else {"scores": scores}
        """Only families that read sizes are told some."""
        distilled = resolved.distilled_guidance
        self._distilled: dict[str, Any] = {} if distilled is None else {"distilled": distilled}
        """Embedded guidance; empty for models that were not distilled with it."""
        self._kept: dict[int, Conditions] = {}
        """The last conditions by variant, all with the adapters of `_with`."""
        self._with: Adapters | None = None

    def variant(self, step: int) -> int:
        """Which of the prompts count in a step, from 0."""
        return self._read.by_step[min(step, len(self._read.by_step) - 1)]

    @property
    def changes(self) -> bool:
        """Whether the prompts of some step are others."""
        return len(self._read.variants) > 1

    def __call__(self, adapters: Adapters, step: int) -> Conditions:
        """The conditions of a step, counted from 0."""
        if adapters is not self._with:
            self._kept.clear()
            self._with = adapters
        variant = self.variant(step)
        found = self._kept.pop(variant, None) or self._computed(adapters, self._read.variants[variant])
        if self.changes:
            # Two prompts that take turns are computed once.
            self._kept = {**dict([*self._kept.items()][-1:]), variant: found}
        return found

    def _computed(self, adapters: Adapters, variant: "_Variant") -> Conditions:
        size_px = self._resolved.width_px, self._resolved.height_px
        whole = self._resolved.guidance_scale * len(variant.positives)

        def read(positive: EncodedPrompt, negative: EncodedPrompt | None, weight: float = 1.0) -> Conditions:
            told = {**self._sizes, **self._distilled}
            return self._family.conditions(positive, negative, whole * weight, size_px, **told)

        with beside([Share(adapters)]):
            if variant.regions:
                # Only families with a U-Net read them.
                found = [self._regional(variant, cast(Any, read), cast(Any, self._family).unet, adapters)]
            else:
                weighted = zip(variant.positives, self._read.weights, strict=True)
                found = [read(one, variant.negative, weight) for one, weight in weighted]
        if self._seen.pictures:
            rows = [cast(RowConditions, one) for one in found]
            shares, guidance = self._read.weights, self._resolved.guidance_scale
            return edited(rows, shares, guidance, self._seen, self._resolved.guidance_rescale)
        # The plan refuses prompts that guide together then.
        if rescale := self._resolved.guidance_rescale:
            return replace(cast(RowConditions, found[0]), rescale=rescale)
        return together(found)

    def _regional(
        self, variant: "_Variant", read: _ReadPrompt, unet: UNet, adapters: Adapters = NO_ADAPTERS
    ) -> RowConditions:
        """What a network reads of the prompts of regions, each with its own `adapters`. The plan refuses prompts that guide
        together then."""
        shares = shares_of([self._maps[one.place] for one in variant.regions])
        positives = [variant.positives[0], *(one.positive for one in variant.regions)]
        negatives = [one for one in (variant.negative, *(one.negative for one in variant.regions)) if one is not None]
        means = shares.means()
        base = read(over_the_picture(positives, means), over_the_picture(negatives, means) if negatives else None)
        others: list[RowConditions] = []
        for one in variant.regions:
            with beside([Share(adapters.of_region(one.place))]):
                others.append(read(one.positive, one.negative))
        return with_regions(base, others, shares, unet)

    def read_by(self, net: GuidingNet, step: int) -> Sequence[RowConditions]:
        """What a ControlNet reads in a step, counted from 0, of each prompt that guides."""
        size_px = self._resolved.width_px, self._resolved.height_px
        variant = self._read.variants[self.variant(step)]
        # Only families with ControlNets are asked.
        family, guidance = cast(Any, self._family), self._resolved.guidance_scale
        told = {**self._sizes, **self._distilled}

        def read(positive: EncodedPrompt, negative: EncodedPrompt | None) -> RowConditions:
            return family.conditions_for(net, positive, negative, guidance, size_px, **told)

        if variant.regions:
            # Only U-Nets read them.
            return [self._regional(variant, read, cast(Any, net))]
        return [read(one, variant.negative) for one in variant.positives]

    def tensors(self) -> Sequence[Tensor]:
        """The device tensors that it keeps."""
        return [*self._maps, *(tensor for one in self._kept.values() for tensor in one.tensors())]


@dataclass(frozen=True, kw_only=True)
class Conditioned:
    """The first conditions of a job, with functions for later ones, cache hits and degradations."""

    conditions: Conditions
    """Those of the first step."""
    renew: Renew
    cache_hits: int
    degradations: tuple[Degraded, ...]


def condition(
    loaded: OnDeviceModel,
    family: Family,
    resolved: ResolvedGeneration,
    prompts: PromptCache,
    adapters: Adapters = NO_ADAPTERS,
    maps: Sequence[Tensor] = (),
    pictures: Sequence[Tensor] = (),
) -> Conditioned:
    """Encode the prompts of all steps, and the negative prompt where the family reads it at this guidance. `maps`: see
    `region_maps`. `pictures`: latents of those that the model sees."""
    with beside([Share(adapters)]):
        read = _read(loaded, family, resolved, prompts, adapters)
    renew = Renew(family, resolved, read, maps, pictures)
    return Conditioned(
        conditions=renew(adapters, 0),
        renew=renew,
        cache_hits=read.cache_hits,
        degradations=read.degradations,
    )


class _Variant(NamedTuple):
    """The prompts of some steps, encoded."""

    positives: Sequence[EncodedPrompt]
    """More than one: they guide together."""
    negative: EncodedPrompt | None
    regions: Sequence[RegionPrompts] = ()


class _Read(NamedTuple):
    """The prompts, encoded."""

    variants: Sequence[_Variant]
    by_step: Sequence[int]
    weights: Sequence[float]
    cache_hits: int
    degradations: tuple[Degraded, ...]


def _read(
    loaded: OnDeviceModel, family: Family, resolved: ResolvedGeneration, prompts: PromptCache, adapters: Adapters
) -> _Read:
    plan = prompt_plan(resolved)
    guided = FAMILIES[loaded.family].reads_negative(resolved.guidance_scale)
    hits = 0

    def encode(prompt: Prompt, own: Adapters = adapters) -> EncodedPrompt:
        nonlocal hits
        found, hit = prompts.get((loaded.model.id, own.of_texts, prompt), lambda: family.encode(prompt))
        hits += hit
        return found

    encoded = [encode(one.prompt) for one in plan.encoded]
    long = {
        one.fields[0]: found
        for one, found in zip(plan.encoded, encoded, strict=True)
        if found.tokens > found.tokens_read
    }
    if resolved.long_prompt is LongPrompt.REFUSE and long:
        raise InvalidRequest([_too_long(field, one) for field, one in long.items()])
    if FAMILIES[loaded.family].reads_windows:
        encoded = of_one_length(encoded, lambda: encode(resolved.empty))
    known = {one.prompt: found for one, found in zip(plan.encoded, encoded, strict=True)}
    shares = [share for _, share in resolved.blended]
    by_region: dict[int, Mapping[Prompt, EncodedPrompt]] = {}
    for place, own in adapters.regions.items():
        if own.of_texts == adapters.of_texts:
            continue
        with beside([Share(own)]):
            texts = _texts_of(place, plan.variants, guided=guided)
            found = of_one_length([encode(one, own) for one in texts], lambda own=own: encode(resolved.empty, own))
        by_region[place] = dict(zip(texts, found, strict=True))
    return _Read(
        variants=[_variant(one, known, by_region, shares, guided=guided and one.guided) for one in plan.variants],
        by_step=plan.by_step,
        weights=plan.weights,
        cache_hits=hits,
        degradations=(*(_cut(field, one) for field, one in long.items()), *map(_beyond, plan.beyond)),
    )


def _texts_of(place: int, variants: Sequence[PromptVariant], *, guided: bool) -> Sequence[Prompt]:
    """The prompts of a region in all steps, each once."""
    own = [one for variant in variants for one in variant.regions if one.place == place]
    return [*dict.fromkeys(text for one in own for text in (one.positive, *([one.negative] if guided else [])))]


def _variant(
    variant: PromptVariant,
    known: Mapping[Prompt, EncodedPrompt],
    by_region: Mapping[int, Mapping[Prompt, EncodedPrompt]],
    shares: Sequence[float],
    *,
    guided: bool,
) -> _Variant:
    """`known`: the encoded prompts; `by_region`: those that a region's own LoRAs encode otherwise."""
    others = [(known[one], share) for one, share in zip(variant.blended, shares, strict=True)]
    return _Variant(
        positives=[blended([(known[one], 1.0), *others]) for one in variant.positives],
        negative=known[variant.negative] if guided else None,
        regions=[
            RegionPrompts(one.place, found[one.positive], found[one.negative] if guided else None)
            for one in variant.regions
            for found in [by_region.get(one.place, known)]
        ],
    )


def _beyond(told: Violation) -> Degraded:
    return Degraded(kind="prompt_edit_unused", reason=ErrorReason.INVALID_FIELD, detail=told.message, field=told.field)


def _too_long(field: str, prompt: EncodedPrompt) -> Violation:
    message = f"has {prompt.tokens} tokens, and the model reads {prompt.tokens_read}; shorten it, or let it be chunked"
    return Violation(field=f"generation.{field}", message=message)


def _cut(field: str, prompt: EncodedPrompt) -> Degraded:
    detail = f"{field} has {prompt.tokens} tokens; the model reads {prompt.tokens_read}, the rest was left out"
    return Degraded(
        kind="prompt_truncated", reason=ErrorReason.INVALID_FIELD, detail=detail, field=f"generation.{field}"
    )
