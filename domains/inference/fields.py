"""All fields of a Generation that are served: one table for the capability list, the checks and the refusals.

A field that is not here is refused by its path. Paths are the contract's, without an index for lists.
"""

from collections.abc import Iterable, Iterator, Mapping
from enum import StrEnum
from typing import Any

import msgspec

from domains.inference import details, limits
from domains.inference.control_types import TOLD
from domains.inference.controls import ControlBalance
from domains.inference.detections import DEFAULT_CONFIDENCE, FACE, LABELS, MOST_FINDS
from domains.inference.hires import DEFAULT_SCALE
from domains.inference.hires import DEFAULT_STRENGTH as HIRES_STRENGTH
from domains.inference.image_prompts import ImagePromptMode
from domains.inference.masks import (
    DEFAULT_BLUR_PX,
    DEFAULT_OVERLAP_PX,
    DEFAULT_ZOOM_PADDING_PX,
    SIDES,
    MaskBlend,
    MaskFill,
)
from domains.inference.own_walk import SPACINGS
from domains.inference.preprocessors import PREPROCESSORS
from domains.inference.prompts import LongPrompt, Syntax
from domains.inference.refiner import DEFAULT_NEGATIVE_SCORE, DEFAULT_SCORE, DEFAULT_START
from domains.inference.resampling import OF_LATENTS, Resampling
from domains.inference.samplers import SAMPLERS, SIGMA_SCHEDULES


class Field(msgspec.Struct, frozen=True, kw_only=True):
    """The allowed values of one field."""

    path: str
    """In a Generation: `sampling.steps`."""
    group: str
    """Its group in a form."""
    bounds: tuple[int, int] | tuple[float, float] | None = None
    """Smallest and largest value; bytes of a text; entries of a list. None: any."""
    multiple_of: int | None = None
    default: str = ""
    """Value of an omitted field, as text. Empty: it depends on the model, or there is none."""
    allowed: tuple[str, ...] = ()
    """Ids, or names of an enum's values. Empty: any."""
    unit: str = ""
    zero_is_unset: bool = False
    """Whether 0 means unset, regardless of the bounds."""


def _prompt(path: str) -> Field:
    return Field(path=path, group="prompt", bounds=(0, limits.PROMPT_BYTES), unit="bytes")


def _choice(path: str, of: type[StrEnum], default: StrEnum) -> Field:
    """An enum of the contract, whose values are named by the field and the enum's values."""
    names = {one: f"{path.upper()}_{one.upper()}" for one in of}
    return Field(path=path, group="prompt", default=names[default], allowed=tuple(names.values()))


def _edge(path: str) -> Field:
    return Field(path=path, group="size", bounds=limits.EDGE_PX, multiple_of=limits.EDGE_MULTIPLE_PX, unit="px")


def _sampling(path: str, **what: Any) -> Field:
    return Field(path=f"sampling.{path}", group="sampling", **what)


def _init_image(path: str, **what: Any) -> Field:
    return Field(path=f"init_image.{path}", group="input", **what)


def _mask(path: str, **what: Any) -> Field:
    return Field(path=f"mask.{path}", group="input", **what)


def _outpaint(path: str, **what: Any) -> Field:
    return Field(path=f"outpaint.{path}", group="input", **what)


def _growth(side: str) -> Field:
    multiple = limits.EDGE_MULTIPLE_PX
    return _outpaint(side, bounds=limits.OUTPAINT_PX, multiple_of=multiple, default="0", unit="px")


def _loras(path: str) -> Iterator[Field]:
    """The fields of the LoRAs that a list names."""
    fields: tuple[tuple[str, dict[str, Any]], ...] = (
        ("model_id", {}),
        ("weight", {"bounds": limits.ADAPTER_WEIGHT, "default": "1"}),
        ("component_weights.component_id", {}),
        ("component_weights.weight", {"bounds": limits.ADAPTER_WEIGHT}),
        ("component_weights.block_weights", {"bounds": limits.ADAPTER_WEIGHT}),
        ("start_ratio", {"bounds": limits.START_RATIO, "default": "0"}),
        ("end_ratio", {"bounds": limits.END_RATIO, "default": "1"}),
    )
    for name, what in fields:
        yield Field(path=f"{path}.{name}", group="adapters", **what)


def _learned(path: str, **what: Any) -> Field:
    return Field(path=f"textual_inversions.{path}", group="adapters", **what)


def _control(path: str, **what: Any) -> Field:
    return Field(path=f"controls.{path}", group="control", **what)


def _region(path: str, **what: Any) -> Field:
    return Field(path=f"regions.{path}", group="prompt", **what)


def _image_prompt(path: str, **what: Any) -> Field:
    return Field(path=f"image_prompts.{path}", group="control", **what)


def _refiner(path: str, **what: Any) -> Field:
    return Field(path=f"refiner.{path}", group="passes", **what)


def _map_options() -> Iterator[Field]:
    """The values that the ways to make a control map read."""
    for kind, entry in PREPROCESSORS.items():
        for name, one in entry.options.items():
            bounds = (int(one.bounds[0]), int(one.bounds[1])) if one.whole else one.bounds
            yield _control(f"preprocessing.{kind}.{name}", bounds=bounds, default=f"{one.default:g}", unit=one.unit)


def _filters(some: Iterable[Resampling]) -> tuple[str, ...]:
    return tuple(f"RESAMPLING_FILTER_{one.upper()}" for one in some)


def _hires_fields() -> Iterator[Field]:
    """Of the second pass; what it leaves open is as in the first."""
    told: dict[str, dict[str, Any]] = {
        "scale": {"bounds": limits.HIRES_SCALE, "default": f"{DEFAULT_SCALE:g}"},
        **{
            f"size.{edge}_px": {"bounds": limits.EDGE_PX, "multiple_of": limits.EDGE_MULTIPLE_PX, "unit": "px"}
            for edge in ("width", "height")
        },
        "latent_filter": {"default": _filters(OF_LATENTS)[0], "allowed": _filters(OF_LATENTS)},
        "pixel_filter": {"allowed": _filters(Resampling)},
        "upscaler_model_id": {},
        "strength": {"bounds": limits.STRENGTH, "default": f"{HIRES_STRENGTH:g}"},
        "steps": {"bounds": limits.STEPS, "unit": "steps"},
        "sampler": {"allowed": tuple(SAMPLERS)},
        "sigma_schedule": {"allowed": tuple(SIGMA_SCHEDULES)},
        "guidance_scale": {"bounds": limits.GUIDANCE},
        **{name: {"bounds": (0, limits.PROMPT_BYTES), "unit": "bytes"} for name in ("prompt", "negative_prompt")},
        "model_id": {},
    }
    for name, what in told.items():
        yield Field(path=f"hires_pass.{name}", group="refine", **what)


def _detail_fields() -> Iterator[Field]:
    """Of a pass over what a detector finds; what it leaves open is as in the generation."""
    px = {"unit": "px"}
    told: dict[str, dict[str, Any]] = {
        "detector_model_id": {},
        "detector.label": {"default": FACE, "allowed": LABELS},
        "detector.min_confidence_ratio": {"bounds": limits.CONFIDENCE, "default": f"{DEFAULT_CONFIDENCE:g}"},
        "detector.min_area_ratio": {"bounds": limits.AREA_RATIO, "default": "0"},
        "detector.max_area_ratio": {"bounds": limits.AREA_RATIO, "default": "1"},
        "detector.max_count": {"bounds": limits.FINDS, "default": str(MOST_FINDS), "zero_is_unset": True},
        **{name: {"bounds": (0, limits.PROMPT_BYTES), "unit": "bytes"} for name in ("prompt", "negative_prompt")},
        "strength": {"bounds": limits.STRENGTH, "default": f"{details.DEFAULT_STRENGTH:g}"},
        "steps": {"bounds": limits.STEPS, "unit": "steps"},
        "dilation_px": {"bounds": limits.DETAIL_DILATION_PX, "default": str(details.DEFAULT_DILATION_PX), **px},
        "blur_px": {"bounds": limits.DETAIL_BLUR_PX, "default": str(details.DEFAULT_BLUR_PX), **px},
        "padding_px": {"bounds": limits.DETAIL_PADDING_PX, "default": str(details.DEFAULT_PADDING_PX), **px},
        "edge_px": {
            **{"bounds": limits.DETAIL_EDGE_PX, "multiple_of": limits.EDGE_MULTIPLE_PX},
            **{"zero_is_unset": True, **px},
        },
    }
    for name, what in told.items():
        yield Field(path=f"detail_passes.{name}", group="refine", **what)


def _output(path: str, **what: Any) -> Field:
    return Field(path=f"output.{path}", group="output", **what)


def _told_size(path: str, **what: Any) -> Field:
    return Field(path=f"size_conditioning.{path}", group="size", unit="px", **what)


CHUNK = "LONG_PROMPT_CHUNK"
SECOND = ("second_prompt", "second_negative_prompt")
"""Texts for the second text encoder."""
THIRD = ("third_prompt", "third_negative_prompt")

_MASK_BLENDS = {one: f"MASK_BLEND_{one.upper()}" for one in MaskBlend}
_MASK_FILLS = {one: f"MASK_FILL_{one.upper()}" for one in MaskFill}
_OUTPAINT_FILLS = (_MASK_FILLS[MaskFill.NOISE], _MASK_FILLS[MaskFill.EDGE])
"""New parts have no pixels of their own, so a fill that keeps the present pixels does not apply."""

FIELDS: Mapping[str, Field] = {
    field.path: field
    for field in (
        _prompt("prompt"),
        _prompt("negative_prompt"),
        _choice("prompt_syntax", Syntax, Syntax.PLAIN),
        _choice("long_prompt", LongPrompt, LongPrompt.TRUNCATE),
        *map(_prompt, SECOND + THIRD),
        Field(path="clip_skip", group="prompt", bounds=limits.CLIP_SKIP, default="0"),
        _prompt("blended_prompts.prompt"),
        Field(path="blended_prompts.weight", group="prompt", bounds=limits.PROMPT_WEIGHT, default="1"),
        _region("mask.data"),
        _region("mask.blob_id"),
        *(_region(f"rectangle.{side}", unit="px") for side in ("left_px", "top_px", "width_px", "height_px")),
        *map(_prompt, ("regions.prompt", "regions.negative_prompt")),
        _region("weight", bounds=limits.REGION_WEIGHT, default="1"),
        _region("start_ratio", bounds=limits.START_RATIO, default="0"),
        _region("end_ratio", bounds=limits.END_RATIO, default="1"),
        *_loras("regions.loras"),
        Field(path="model_id", group="execution"),
        Field(path="loaded_model_id", group="execution"),
        Field(path="require_loaded_model", group="execution", default="false"),
        Field(
            path="determinism",
            group="execution",
            default="DETERMINISM_FAST",
            allowed=("DETERMINISM_FAST", "DETERMINISM_EXACT"),
        ),
        _edge("width_px"),
        _edge("height_px"),
        Field(path="image_count", group="size", bounds=limits.IMAGES, default="1", zero_is_unset=True),
        *(
            _told_size(f"{name}.{edge}", bounds=limits.TOLD_EDGE_PX, zero_is_unset=True)
            for name in ("original_size", "target_size")
            for edge in ("width_px", "height_px")
        ),
        _told_size("crop_left_px", bounds=limits.CROP_PX, default="0"),
        _told_size("crop_top_px", bounds=limits.CROP_PX, default="0"),
        _sampling("sampler", allowed=tuple(SAMPLERS)),
        _sampling("sigma_schedule", allowed=tuple(SIGMA_SCHEDULES)),
        _sampling("steps", bounds=limits.STEPS, unit="steps"),
        _sampling("guidance_scale", bounds=limits.GUIDANCE),
        _sampling("distilled_guidance", bounds=limits.GUIDANCE),
        Field(
            path="sampling.image_guidance_scale",
            group="input",
            bounds=limits.GUIDANCE,
        ),
        _sampling("guidance_rescale", bounds=limits.GUIDANCE_RESCALE, default="0"),
        _sampling("dynamic_threshold_ratio", bounds=limits.THRESHOLD_RATIO),
        _sampling("guidance_start_ratio", bounds=limits.START_RATIO, default="0"),
        _sampling("guidance_end_ratio", bounds=limits.END_RATIO, default="1"),
        _sampling("seed", bounds=limits.SEED),
        _sampling("seeds", bounds=(0, limits.IMAGES[1])),
        _sampling("eta", bounds=limits.ETA, default="0"),
        _sampling("seed_variation.seed", bounds=limits.SEED),
        _sampling("seed_variation.strength", bounds=limits.VARIATION),
        _sampling("timestep_spacing", allowed=SPACINGS),
        _sampling("solver_order", bounds=limits.SOLVER_ORDER),
        _sampling("flow_shift", bounds=limits.FLOW_SHIFT),
        _sampling("sigmas", bounds=limits.SIGMAS),
        _sampling("timesteps", bounds=limits.TIMESTEPS),
        _sampling("first_step", bounds=limits.FIRST_STEP, default="0"),
        _sampling("last_step", bounds=limits.LAST_STEP),
        _sampling("add_noise", default="true"),
        _init_image("image.data"),
        _init_image("image.blob_id"),
        _init_image("strength", bounds=limits.STRENGTH, default=f"{limits.DEFAULT_STRENGTH:g}"),
        _init_image("fit", allowed=tuple(f"IMAGE_FIT_{name.upper()}" for name in limits.FITS)),
        Field(path="seamless_x", group="sampling", default="false"),
        Field(path="seamless_y", group="sampling", default="false"),
        _mask("image.data"),
        _mask("image.blob_id"),
        _mask("blur_px", bounds=limits.MASK_BLUR_PX, default=str(DEFAULT_BLUR_PX), unit="px"),
        _mask("dilation_px", bounds=limits.MASK_DILATION_PX, default="0", unit="px"),
        _mask("invert", default="false"),
        _mask("blend", default=_MASK_BLENDS[MaskBlend.FEATHER], allowed=tuple(_MASK_BLENDS.values())),
        _mask("fill", default=_MASK_FILLS[MaskFill.ORIGINAL], allowed=tuple(_MASK_FILLS.values())),
        _mask("zoom_to_mask", default="false"),
        _mask("zoom_padding_px", bounds=limits.ZOOM_PADDING_PX, default=str(DEFAULT_ZOOM_PADDING_PX), unit="px"),
        *map(_growth, SIDES),
        _refiner("model_id"),
        _refiner("start_ratio", bounds=limits.REFINER_START, default=f"{DEFAULT_START:g}"),
        _refiner("aesthetic_score", bounds=limits.AESTHETIC, default=f"{DEFAULT_SCORE:g}"),
        _refiner("negative_aesthetic_score", bounds=limits.AESTHETIC, default=f"{DEFAULT_NEGATIVE_SCORE:g}"),
        *_hires_fields(),
        *_detail_fields(),
        Field(path="init_latents.blob_id", group="input"),
        Field(path="init_latents.strength", group="input", bounds=limits.STRENGTH, default="1"),
        Field(path="return_latents", group="output", default="false"),
        Field(path="components.component_id", group="execution"),
        Field(path="components.model_id", group="execution"),
        Field(path="components.omitted", group="execution", default="false"),
        _outpaint("overlap_px", bounds=limits.OVERLAP_PX, default=str(DEFAULT_OVERLAP_PX), unit="px"),
        _outpaint(
            "fill",
            default=_MASK_FILLS[MaskFill.EDGE],
            allowed=_OUTPAINT_FILLS,
        ),
        *_loras("loras"),
        _learned("model_id"),
        _learned("token"),
        _learned("weight", bounds=limits.TOKEN_WEIGHT, default="1"),
        _control("model_id"),
        _control("image.data"),
        _control("image.blob_id"),
        *_map_options(),
        _control("weight", bounds=limits.CONTROL_WEIGHT, default="1"),
        _control("start_ratio", bounds=limits.START_RATIO, default="0"),
        _control("end_ratio", bounds=limits.END_RATIO, default="1"),
        _control(
            "balance",
            default="CONTROL_BALANCE_EVEN",
            allowed=tuple(f"CONTROL_BALANCE_{one.upper()}" for one in ControlBalance),
        ),
        _control("fit", allowed=tuple(f"IMAGE_FIT_{name.upper()}" for name in limits.FITS)),
        _control("control_type", allowed=TOLD),
        _control("region.data"),
        _control("region.blob_id"),
        _image_prompt("model_id"),
        *(_image_prompt(f"{of}.{by}") for of in ("images", "region", "negative_image") for by in ("data", "blob_id")),
        _image_prompt("weight", bounds=limits.IMAGE_PROMPT_WEIGHT, default="1"),
        _image_prompt("start_ratio", bounds=limits.START_RATIO, default="0"),
        _image_prompt("end_ratio", bounds=limits.END_RATIO, default="1"),
        _image_prompt(
            "mode",
            default="IMAGE_PROMPT_MODE_CONTENT_AND_STYLE",
            allowed=tuple(f"IMAGE_PROMPT_MODE_{one.upper()}" for one in ImagePromptMode),
        ),
        *(Field(path=f"reference_images.{one}", group="input") for one in ("image.data", "image.blob_id")),
        Field(
            path="reference_images.fit",
            group="input",
            default="IMAGE_FIT_COVER",
            allowed=tuple(f"IMAGE_FIT_{name.upper()}" for name in limits.FITS),
        ),
        _output("media_type", default=limits.MEDIA_TYPES[0], allowed=limits.MEDIA_TYPES),
        _output("quality", bounds=limits.QUALITY, default=str(limits.DEFAULT_QUALITY)),
        _output("lossless", default="false"),
        _output("bit_depth", bounds=(8, 8), default="8", unit="bits", zero_is_unset=True),
        _output(
            "manifest",
            default="MANIFEST_DETAIL_FULL",
            allowed=("MANIFEST_DETAIL_FULL", "MANIFEST_DETAIL_RECIPE", "MANIFEST_DETAIL_NONE"),
        ),
        _output("a1111_parameters", default="false"),
        _output("provenance", default="true"),
        Field(path="previews.every_steps", group="output", bounds=limits.PREVIEW_EVERY, default="0", unit="steps"),
        Field(
            path="previews.max_edge_px",
            group="output",
            bounds=limits.PREVIEW_EDGE_PX,
            default=str(limits.DEFAULT_PREVIEW_EDGE_PX),
            unit="px",
            zero_is_unset=True,
        ),
    )
}
"""By path, in the order in which a form shows them."""
