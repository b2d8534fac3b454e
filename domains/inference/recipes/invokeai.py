"""The recipe of InvokeAI's `invokeai_metadata`, a flat JSON object."""

from typing import Annotated

import msgspec

from domains.errors import excerpt
from domains.inference.generation import Generation, Sampling
from domains.inference.recipes.names import of_others
from domains.inference.recipes.recipe import Cause, NamedLora, NamedModel, Recipe, stem, unusable

_Text = Annotated[str, msgspec.Meta(max_length=32 * 1024)]


class _Model(msgspec.Struct, frozen=True):
    name: str = ""
    model_name: str = ""

    @property
    def known_as(self) -> str:
        """The name, whichever version wrote it."""
        return self.name or self.model_name


class _Lora(msgspec.Struct, frozen=True):
    weight: float = 1.0
    model: _Model | None = None
    lora: _Model | None = None


class _Metadata(msgspec.Struct, frozen=True):
    seed: int
    steps: int
    scheduler: str
    width: int
    height: int
    positive_prompt: _Text = ""
    negative_prompt: _Text | None = None
    cfg_scale: float | None = None
    generation_mode: str = "txt2img"
    clip_skip: int | None = None
    model: _Model | None = None
    loras: Annotated[list[_Lora], msgspec.Meta(max_length=256)] | None = None


def of_metadata(text: str) -> Recipe:
    """Read the object. Raises BAD_IMAGE if it does not say enough."""
    try:
        told = msgspec.json.decode(text, type=_Metadata)
    except (msgspec.DecodeError, RecursionError, UnicodeError) as error:
        raise unusable(f"has InvokeAI metadata that do not say enough: {excerpt(error)}") from None
    if not told.generation_mode.endswith("txt2img"):
        raise unusable(f"was made by InvokeAI's {excerpt(told.generation_mode)}, from another picture")
    sampler, schedule = of_others(told.scheduler)
    return Recipe(
        source="invokeai",
        generation=Generation(
            prompt=told.positive_prompt,
            negative_prompt=told.negative_prompt or "",
            width_px=told.width,
            height_px=told.height,
            sampling=Sampling(
                sampler=sampler,
                sigma_schedule=schedule,
                steps=told.steps,
                guidance_scale=told.cfg_scale,
                seeds=(told.seed,),
            ),
            clip_skip=told.clip_skip or None,
        ),
        model=NamedModel(name=stem(told.model.known_as) if told.model else ""),
        loras=tuple(
            NamedLora(name=(one.model or one.lora or _Model()).known_as, weight=one.weight) for one in told.loras or ()
        ),
        unread=() if sampler else (Cause(name="sampler", original=told.scheduler[:255]),),
    )
