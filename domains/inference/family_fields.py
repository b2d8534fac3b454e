"""Which fields of a Generation a task and a family read, with the family's own defaults and limits."""

from enum import StrEnum
from functools import cache

import msgspec

from domains.inference import limits
from domains.inference.control_types import CONTROL_MODES
from domains.inference.fields import CHUNK, FIELDS, SECOND, THIRD, Field
from domains.inference.generation import ResolvedGeneration
from domains.inference.image_prompts import MODES, PROMPTED
from domains.inference.regions import REGIONAL
from domains.inference.samplers import schedules_of, walkers_of
from domains.inference.seamless import SEAMLESS, makes_seamless
from domains.model.families import CONTROLLED, FAMILIES, REFINERS, Family

_OF_PIXELS = ("sampling.dynamic_threshold_ratio",)
"""Fields for models that compute in pixels. No supported family does."""


class Task(StrEnum):
    """What a generation starts from, by the contract's names."""

    TEXT_TO_IMAGE = "text_to_image"
    IMAGE_TO_IMAGE = "image_to_image"
    INPAINTING = "inpainting"
    OUTPAINTING = "outpainting"
    EDITING = "editing"


_INPUTS = {
    Task.TEXT_TO_IMAGE: ("init_latents",),
    Task.IMAGE_TO_IMAGE: ("init_image",),
    Task.INPAINTING: ("init_image", "mask"),
    Task.OUTPAINTING: ("init_image", "mask", "outpaint"),
    Task.EDITING: ("reference_images", "sampling.image_guidance_scale"),
}
"""Messages and fields of the group `input` that a task reads."""


def tasks_of(family: Family) -> tuple[Task, ...]:
    """The tasks that models of a family are computed for."""
    return tuple(task for task in Task if task is not Task.EDITING or family.edits)


def task_of(resolved: ResolvedGeneration) -> Task:
    """The task of a generation, which follows from its inputs."""
    if resolved.references:
        return Task.EDITING
    if resolved.outpaint is not None:
        return Task.OUTPAINTING
    if resolved.mask is not None:
        return Task.INPAINTING
    return Task.TEXT_TO_IMAGE if resolved.init_image is None else Task.IMAGE_TO_IMAGE


def fields_of(family: Family, task: Task) -> tuple[Field, ...]:
    """The fields of a task with the family's own default guidance and multiple of edges."""
    read, hidden = _INPUTS[task], unread(family)
    return tuple(
        _of(family, field)
        for field in FIELDS.values()
        if (field.group != "input" or field.path.startswith(read)) and field.path not in hidden
    )


def unread(family: Family) -> frozenset[str]:
    """Paths of the fields that have no meaning for a family."""
    return _unread(family.id)


@cache
def _unread(family_id: str) -> frozenset[str]:
    family = FAMILIES[family_id]
    reads = {
        "clip_skip": family.reads_windows,
        "blended_prompts": family.reads_windows,
        "size_conditioning": family.reads_sizes,
        "reference_images": family.edits,
        "controls": family.id in CONTROLLED,
        "image_prompts": family.id in PROMPTED,
        "regions": family.id in REGIONAL,
        "refiner": any(FAMILIES[name].base == family.id for name in REFINERS),
        **dict.fromkeys(SEAMLESS, makes_seamless(family)),
    }
    walk = {
        "controls.control_type": family.id in CONTROL_MODES,
        "sampling.timestep_spacing": not family.flow,
        "sampling.flow_shift": family.flow,
        "sampling.image_guidance_scale": family.image_guidance is not None,
        "sampling.distilled_guidance": family.distilled_guidance is not None,
    }
    few = {1: SECOND + THIRD, 2: THIRD}.get(family.text_encoders, ())
    others = (path for path in FIELDS if not (reads | walk).get(path, reads.get(path.partition(".")[0], True)))
    return frozenset((*few, *_OF_PIXELS, *others))


def _of(family: Family, field: Field) -> Field:
    match field.path:
        case "sampling.sampler" | "hires_pass.sampler":
            return msgspec.structs.replace(field, allowed=walkers_of(flow=family.flow))
        case "sampling.sigma_schedule" | "hires_pass.sigma_schedule":
            return msgspec.structs.replace(field, allowed=schedules_of(flow=family.flow))
        case "sampling.distilled_guidance":
            return msgspec.structs.replace(field, default=f"{family.distilled_guidance:g}")
        case "sampling.image_guidance_scale":
            return msgspec.structs.replace(field, default=f"{family.image_guidance:g}")
        case "sampling.guidance_scale":
            return msgspec.structs.replace(field, default=f"{family.default_guidance:g}")
        case (
            "width_px"
            | "height_px"
            | "hires_pass.size.width_px"
            | "hires_pass.size.height_px"
            | "detail_passes.edge_px"
        ):
            return msgspec.structs.replace(field, multiple_of=max(limits.EDGE_MULTIPLE_PX, family.alignment_px))
        case "controls.control_type":
            return msgspec.structs.replace(field, allowed=tuple(CONTROL_MODES[family.id]))
        case "image_prompts.mode" if family.id not in MODES:
            return msgspec.structs.replace(field, allowed=(field.default,))
        case "prompt_syntax" if not family.reads_windows:
            return msgspec.structs.replace(field, allowed=(field.default,))
        case "long_prompt" if not family.reads_windows:
            return msgspec.structs.replace(field, allowed=tuple(one for one in field.allowed if one != CHUNK))
        case _:
            return field
