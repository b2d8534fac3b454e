"""The passes of a generation, each as a generation of its own: the one engine computes them one after the other."""

from collections.abc import Iterator
from enum import StrEnum
from typing import Any

import msgspec
from msgspec.structs import replace

from domains.inference.details import ResolvedDetail
from domains.inference.generation import ResolvedGeneration
from domains.inference.hires import ResolvedHires
from domains.inference.init_image import ResolvedInitImage
from domains.inference.latents import ResolvedLatents
from domains.inference.masks import MaskBlend, MaskFill, ResolvedMask
from domains.inference.refiner import ResolvedRefiner
from domains.inference.step_range import ALL_STEPS, StepRange
from domains.progress import Stage


class PassKind(StrEnum):
    """What a pass does."""

    FIRST = "first"
    REFINER = "refiner"
    """Computes the last steps of the first pass with another model."""
    HIRES = "hires"
    """Denoises an enlarged picture again."""
    DETAIL = "detail"
    """Makes a part of a finished picture again."""


STAGES = {
    PassKind.FIRST: Stage.DENOISING,
    PassKind.REFINER: Stage.REFINING,
    PassKind.HIRES: Stage.HIRES,
    PassKind.DETAIL: Stage.DETAILING,
}
"""The stage in which a pass computes its steps."""


class Pass(msgspec.Struct, frozen=True):
    """One pass."""

    kind: PassKind
    resolved: ResolvedGeneration
    """What it computes: without other passes."""
    model_index: int = 0
    """Place of its model among those of the run: `models_of`."""

    @property
    def stage(self) -> Stage:
        """The stage of its steps."""
        return STAGES[self.kind]


def passes_of(resolved: ResolvedGeneration) -> tuple[Pass, ...]:
    """All passes of a generation before its pictures are decoded, in their order. The first one draws its own beginning,
    each other one has the latents of the one before it."""
    return tuple(_passes(resolved))


def _passes(resolved: ResolvedGeneration) -> Iterator[Pass]:
    first = replace(resolved, hires_pass=None, refiner=None, detail_passes=(), return_latents=False)
    yield from _refined(first, resolved.refiner)
    if resolved.hires_pass is not None:
        index = len(models_of(resolved)) - 1 if resolved.hires_pass.model_id else 0
        yield Pass(PassKind.HIRES, _again(first, resolved.hires_pass), index)


def models_of(resolved: ResolvedGeneration) -> tuple[str, ...]:
    """Ids of the models that compute passes: the base, then those of a refiner and of a second pass that name their own."""
    refiner = () if resolved.refiner is None else (resolved.refiner.model_id,)
    hires = resolved.hires_pass.model_id if resolved.hires_pass is not None else ""
    return (resolved.runs_as, *refiner, *((hires,) if hires else ()))


def upscaler_of(resolved: ResolvedGeneration) -> str:
    """Id of the model that enlarges pictures between passes. Empty: none does."""
    return "" if resolved.hires_pass is None else resolved.hires_pass.upscaler_model_id


def _refined(first: ResolvedGeneration, refiner: ResolvedRefiner | None) -> Iterator[Pass]:
    """The first pass, then that of the refiner, which computes its last steps, or all of them."""
    visited = first.visited
    switch = visited.stop if refiner is None or not visited else refiner.first_step(first.steps)
    if switch > visited.start or not visited:
        part = replace(first.part, first_step=visited.start, last_step=switch)
        within = (0, len(visited))
        yield Pass(PassKind.FIRST, first if switch >= visited.stop else replace(first, part=part, within=within))
    if refiner is not None and switch < visited.stop:
        yield Pass(PassKind.REFINER, _last(first, refiner, max(switch, visited.start)), 1)


def _last(first: ResolvedGeneration, refiner: ResolvedRefiner, begin: int) -> ResolvedGeneration:
    """The steps of a refiner, from `begin`. LoRAs, textual inversions, controls and image prompts are the model's alone."""
    alone = begin == first.visited.start
    return replace(
        first,
        model_id=refiner.model_id,
        model_sha256=refiner.model_sha256,
        family=refiner.family,
        components=(),
        loras=(),
        textual_inversions=(),
        controls=(),
        image_prompts=(),
        second_prompt="",
        second_negative_prompt="",
        aesthetic_scores=(refiner.aesthetic_score, refiner.negative_aesthetic_score),
        **{} if alone else _handed_over(first, begin),
    )


def _handed_over(first: ResolvedGeneration, begin: int) -> dict[str, Any]:
    """Fields of a pass that continues from the latents of another one."""
    part = StepRange(first_step=begin, last_step=first.part.last_step, add_noise=False)
    within = begin - first.visited.start, len(first.visited)
    return {"init_image": None, "init_latents": ResolvedLatents(strength=1.0), "part": part, "within": within}


def _again(first: ResolvedGeneration, hires: ResolvedHires) -> ResolvedGeneration:
    """The second pass: from latents, at its own size."""
    positive = {"prompt": hires.prompt, "second_prompt": "", "third_prompt": ""} if hires.prompt else {}
    own = {"model_id": hires.model_id, "model_sha256": hires.model_sha256, "components": ()} if hires.model_id else {}
    names = ("negative_prompt", "second_negative_prompt", "third_negative_prompt")
    negative = dict(zip(names, (hires.negative_prompt, "", ""), strict=True)) if hires.negative_prompt else {}
    return replace(
        first,
        **{**positive, **negative, **own},
        width_px=hires.width_px,
        height_px=hires.height_px,
        steps=hires.steps,
        sampler=hires.sampler,
        sigma_schedule=hires.sigma_schedule,
        guidance_scale=hires.guidance_scale,
        eta=hires.eta,
        own=replace(first.own, sigmas=(), timesteps=()) if hires.sigma_schedule else first.own,
        part=ALL_STEPS,
        init_image=None,
        init_latents=ResolvedLatents(strength=hires.strength),
    )


def redraws_of(resolved: ResolvedGeneration) -> tuple[ResolvedGeneration, ...]:
    """For each detail pass, the generation that makes one find of the first picture again."""
    return tuple(redraw(resolved, detail, 0) for detail in resolved.detail_passes)


def redraw(resolved: ResolvedGeneration, detail: ResolvedDetail, index: int) -> ResolvedGeneration:
    """The generation that makes one find of a picture (from 0) again: an inpainting that is zoomed to the find's box, by the
    base model, with the picture's seed. What guides the whole picture by its places does not guide it."""
    size, own = (detail.width_px, detail.height_px), resolved.result_px
    positive = {"prompt": detail.prompt, "second_prompt": "", "third_prompt": ""} if detail.prompt else {}
    names = ("negative_prompt", "second_negative_prompt", "third_negative_prompt")
    negative = dict(zip(names, (detail.negative_prompt, "", ""), strict=True)) if detail.negative_prompt else {}
    varied = resolved.seed_variation
    return replace(
        resolved,
        **{**positive, **negative},
        width_px=size[0],
        height_px=size[1],
        steps=detail.steps,
        seeds=resolved.seeds[index : index + 1],
        seed_variation=None if varied is None else replace(varied, seeds=varied.seeds[index : index + 1]),
        init_image=ResolvedInitImage(
            blob_id="", sha256="", strength=detail.strength, fit=None, own_size_px=None if own == size else own
        ),
        mask=ResolvedMask(
            blob_id="",
            sha256="",
            blur_px=detail.blur_px,
            dilation_px=0,
            invert=False,
            blend=MaskBlend.FEATHER,
            fill=MaskFill.ORIGINAL,
            zoom_padding_px=detail.padding_px,
        ),
        part=ALL_STEPS,
        **dict.fromkeys(("outpaint", "init_latents", "hires_pass", "refiner")),
        **dict.fromkeys(("controls", "regions", "references", "detail_passes"), ()),
        return_latents=False,
    )


def detectors_of(resolved: ResolvedGeneration) -> tuple[str, ...]:
    """Ids of the models that look for details, each once."""
    return tuple(dict.fromkeys(one.detector_model_id for one in resolved.detail_passes))


def largest_px(resolved: ResolvedGeneration) -> tuple[int, int]:
    """(width, height) of the largest pass over whole pictures."""
    sizes = [(one.resolved.width_px, one.resolved.height_px) for one in passes_of(resolved)]
    return max(sizes, key=lambda size: size[0] * size[1])


def largest_batch(resolved: ResolvedGeneration) -> tuple[int, int, int]:
    """(width, height, pictures) of the largest pass, which decides about memory. Finds are made one by one."""
    images = len(resolved.seeds)
    sizes = [(one.resolved.width_px, one.resolved.height_px, images) for one in passes_of(resolved)]
    sizes += [(one.width_px, one.height_px, 1) for one in resolved.detail_passes]
    return max(sizes, key=lambda size: size[0] * size[1] * size[2])


def steps_by_stage(resolved: ResolvedGeneration) -> dict[Stage, int]:
    """The number of computed steps of each pass, in their order."""
    return {one.stage: one.resolved.computed_steps for one in passes_of(resolved)}
