"""Converts the kinds of guidance to and from the fields of Sampling."""

from typing import Any

from deviceops.inference.v1 import sampling_pb2
from domains.inference.generation import ResolvedGeneration, Sampling

_ASKED = (
    *("guidance_scale", "distilled_guidance", "image_guidance_scale", "guidance_rescale", "dynamic_threshold_ratio"),
    *("guidance_start_ratio", "guidance_end_ratio"),
)


def from_guidance(message: sampling_pb2.Sampling) -> dict[str, float | None]:
    """The values of a message."""
    told = {field.name: value for field, value in message.ListFields()}
    return {name: told.get(name) for name in _ASKED}


def guidance_fields(asked: Sampling) -> dict[str, Any]:
    """The fields of the message, as the caller asked for them."""
    return {name: getattr(asked, name) for name in _ASKED}


def resolved_guidance_fields(resolved: ResolvedGeneration) -> dict[str, Any]:
    """The fields of the message with every choice made. The start and end ratio are set only if they are not 0 and 1."""
    ratios = {"guidance_start_ratio": resolved.guidance_start_ratio, "guidance_end_ratio": resolved.guidance_end_ratio}
    return {
        "guidance_scale": resolved.guidance_scale,
        "distilled_guidance": resolved.distilled_guidance,
        "image_guidance_scale": resolved.image_guidance_scale,
        "guidance_rescale": resolved.guidance_rescale,
        **({} if tuple(ratios.values()) == (0.0, 1.0) else ratios),
    }
