"""Converts the flags of a generation to a request."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

    from deviceops.common.v1.image_pb2 import ImageInput
    from deviceops.common.v1.job_event_pb2 import JobOptions
    from deviceops.inference.v1.conditioning_pb2 import (
        ControlInput,
        ImagePrompt,
        InitImage,
        InpaintMask,
        LatentInput,
        LoraInput,
        Outpaint,
        RegionalPrompt,
    )
    from deviceops.inference.v1.generation_pb2 import Generation
    from deviceops.inference.v1.inference_service_pb2 import GenerateRequest
    from deviceops.inference.v1.sampling_pb2 import Sampling
    from deviceops.model.v1.execution_pb2 import ComponentSource
    from deviceops.processing.v1.processing_service_pb2 import SubmitJobRequest
    from server.cli.generation.component_flags import ComponentWish
    from server.cli.generation.control_flags import ControlWish
    from server.cli.generation.image_prompt_flags import ImagePromptWish
    from server.cli.generation.pass_flags import DetailWish, HiresWish
    from server.cli.generation.region_flags import RegionWish


@dataclass(frozen=True)
class LoraWish:
    """An adapter, as `--lora MODEL` or `--lora MODEL=WEIGHT` names it."""

    model: str
    weight: float | None = None
    """None: 1."""


@dataclass(frozen=True, kw_only=True)
class Wish:
    """The flags of a generation. None: the server chooses. The server checks the ranges."""

    prompt: str
    negative: str = ""
    syntax: str = ""
    """How brackets are read: plain, a1111 or comfyui; empty: as plain text."""
    long_prompt: str = ""
    """truncate, chunk or refuse; empty: truncate."""
    clip_skip: int | None = None
    model: str = ""
    """A model's id; empty: the server's default."""
    steps: int | None = None
    guidance: float | None = None
    sampler: str = ""
    sigma_schedule: str = ""
    seed: int | None = None
    variation_seed: int | None = None
    variation: float | None = None
    """How far the noise is moved to the second seed, 0..1. None: not at all."""
    distilled_guidance: float | None = None
    image_guidance: float | None = None
    references: tuple[Path, ...] = ()
    """Pictures that the model sees."""
    reference_inputs: tuple[ImageInput, ...] = ()
    """The same, as the server gets them."""
    guidance_rescale: float | None = None
    first_step: int | None = None
    """From 0."""
    last_step: int | None = None
    """The step to stop before."""
    count: int = 1
    width: int | None = None
    """px"""
    height: int | None = None
    """px"""
    media_type: str = "image/png"
    quality: int | None = None
    """1..100"""
    manifest: str = "full"
    """The manifest in the file: full, recipe or none."""
    provenance: bool = True
    """Whether to mark the file as made by AI."""
    preview_every: int = 0
    """Steps between two previews; 0: none."""
    image: Path | None = None
    """A picture to start from."""
    image_input: ImageInput | None = None
    """The same, as the server gets it."""
    strength: float | None = None
    fit: str = ""
    """stretch, cover or pad; empty: the picture has the size that is asked for."""
    mask: Path | None = None
    """The mask: its white part is made anew."""
    mask_input: ImageInput | None = None
    """The same, as the server gets it."""
    mask_blur: int | None = None
    """px"""
    mask_dilation: int = 0
    """px"""
    mask_invert: bool = False
    mask_blend: str = ""
    """none, feather or gaussian; empty: the server's default."""
    mask_fill: str = ""
    """original, noise or edge; empty: the server's default."""
    zoom: bool = False
    """Whether only the surroundings of the mask are made, at the full size."""
    zoom_padding: int | None = None
    """px"""
    outpaint: tuple[int, int, int, int] | None = None
    """Growth at the left, top, right and bottom, px."""
    outpaint_overlap: int | None = None
    """px"""
    outpaint_fill: str = ""
    """edge or noise; empty: the server's default."""
    seamless_x: bool = False
    """Whether left and right edges fit together."""
    seamless_y: bool = False
    """Whether upper and lower edges fit together."""
    controls: tuple[ControlWish, ...] = ()
    """Pictures that guide the layout."""
    control_inputs: tuple[ControlInput, ...] = ()
    """The same, as the server gets them."""
    latents: str = ""
    """Id of a blob with latents to start from; empty: none."""
    return_latents: bool = False
    """Whether to hand out latents, too."""
    refiner: str = ""
    """A refiner for the last steps; empty: none."""
    refiner_start: float | None = None
    """Share of the steps after which the refiner takes over."""
    hires: HiresWish | None = None
    """A second pass at a larger size."""
    details: tuple[DetailWish, ...] = ()
    """Passes over what detectors find."""
    components: tuple[ComponentWish, ...] = ()
    """Components that replace the model's own, or are left out."""
    regions: tuple[RegionWish, ...] = ()
    """Parts of the picture with prompts of their own."""
    region_inputs: tuple[RegionalPrompt, ...] = ()
    """The same, as the server gets them."""
    image_prompts: tuple[ImagePromptWish, ...] = ()
    """Pictures that guide content and style."""
    image_prompt_inputs: tuple[ImagePrompt, ...] = ()
    """The same, as the server gets them."""
    loras: tuple[LoraWish, ...] = ()
    """Adapters for this job alone."""
    device: str = ""
    """A device's id or alias; empty: any."""
    session: str = ""
    """A session's id; empty: none."""
    priority: str = ""
    """low, normal, high or critical; empty: the server's default."""
    run_timeout_s: float | None = None
    """Seconds that the job may run. None: no limit."""


def generate_request(wish: Wish, request_id: str = "") -> GenerateRequest:
    """The request, with only the given flags set.

    With a `request_id` the job is detached: a lost connection does not cancel it, and the same request finds it again.
    """
    from deviceops.inference.v1 import inference_service_pb2

    return inference_service_pb2.GenerateRequest(
        generation=_generation(wish), options=_options(wish), detached=bool(request_id), request_id=request_id
    )


def submit_request(wish: Wish, request_id: str) -> SubmitJobRequest:
    """The same job, submitted without following it."""
    from deviceops.processing.v1 import job_pb2, processing_service_pb2

    return processing_service_pb2.SubmitJobRequest(
        spec=job_pb2.JobSpec(generation=_generation(wish)), options=_options(wish), request_id=request_id
    )


def _options(wish: Wish) -> JobOptions | None:
    from google.protobuf.duration_pb2 import Duration

    from deviceops.common.v1 import job_event_pb2

    if not (wish.device or wish.session or wish.priority or wish.run_timeout_s):
        return None
    name = f"PRIORITY_{wish.priority.upper() or 'UNSPECIFIED'}"
    limit = Duration()
    limit.FromNanoseconds(round((wish.run_timeout_s or 0.0) * 1e9))
    return job_event_pb2.JobOptions(
        session_id=wish.session,
        priority=job_event_pb2.Priority.Value(name),
        devices=job_event_pb2.DeviceSelector(device_ids=[wish.device]) if wish.device else None,
        run_timeout=limit if wish.run_timeout_s else None,
    )


def _generation(wish: Wish) -> Generation:
    from deviceops.common.v1 import image_pb2
    from deviceops.inference.v1 import conditioning_pb2, generation_pb2
    from server.cli.generation.pass_flags import detail_passes, hires_pass, refiner_pass

    return generation_pb2.Generation(
        prompt=wish.prompt,
        negative_prompt=wish.negative,
        prompt_syntax=generation_pb2.PromptSyntax.Value(f"PROMPT_SYNTAX_{wish.syntax.upper() or 'UNSPECIFIED'}"),
        long_prompt=generation_pb2.LongPrompt.Value(f"LONG_PROMPT_{wish.long_prompt.upper() or 'UNSPECIFIED'}"),
        clip_skip=wish.clip_skip,
        model_id=wish.model,
        width_px=wish.width,
        height_px=wish.height,
        image_count=wish.count,
        sampling=_sampling(wish),
        output=image_pb2.EncodeOptions(
            media_type=wish.media_type,
            quality=wish.quality,
            manifest=image_pb2.ManifestDetail.Value(f"MANIFEST_DETAIL_{wish.manifest.upper()}"),
            provenance=wish.provenance,
        ),
        init_image=_init_image(wish),
        mask=_mask(wish),
        outpaint=_outpaint(wish),
        init_latents=_latents(wish),
        return_latents=wish.return_latents,
        refiner=refiner_pass(wish.refiner, wish.refiner_start),
        hires_pass=hires_pass(wish.hires),
        detail_passes=detail_passes(wish.details),
        components=_components(wish),
        loras=_loras(wish),
        seamless_x=wish.seamless_x,
        seamless_y=wish.seamless_y,
        controls=wish.control_inputs,
        regions=wish.region_inputs,
        image_prompts=wish.image_prompt_inputs,
        reference_images=[conditioning_pb2.ReferenceImage(image=one) for one in wish.reference_inputs],
        previews=generation_pb2.PreviewOptions(every_steps=wish.preview_every) if wish.preview_every else None,
    )


def _init_image(wish: Wish) -> InitImage | None:
    from deviceops.common.v1 import image_pb2
    from deviceops.inference.v1 import conditioning_pb2

    if wish.image_input is None:
        return None
    fit = image_pb2.ImageFit.Value(f"IMAGE_FIT_{wish.fit.upper() or 'UNSPECIFIED'}")
    return conditioning_pb2.InitImage(image=wish.image_input, strength=wish.strength, fit=fit)


def _mask(wish: Wish) -> InpaintMask | None:
    from deviceops.inference.v1 import conditioning_pb2

    if wish.mask_input is None:
        return None
    return conditioning_pb2.InpaintMask(
        image=wish.mask_input,
        blur_px=wish.mask_blur,
        dilation_px=wish.mask_dilation,
        invert=wish.mask_invert,
        blend=conditioning_pb2.MaskBlend.Value(f"MASK_BLEND_{wish.mask_blend.upper() or 'UNSPECIFIED'}"),
        fill=conditioning_pb2.MaskFill.Value(f"MASK_FILL_{wish.mask_fill.upper() or 'UNSPECIFIED'}"),
        zoom_to_mask=wish.zoom,
        zoom_padding_px=wish.zoom_padding,
    )


def _loras(wish: Wish) -> list[LoraInput]:
    from deviceops.inference.v1 import conditioning_pb2

    return [conditioning_pb2.LoraInput(model_id=one.model, weight=one.weight) for one in wish.loras]


def _latents(wish: Wish) -> LatentInput | None:
    from deviceops.inference.v1 import conditioning_pb2

    return conditioning_pb2.LatentInput(blob_id=wish.latents, strength=wish.strength) if wish.latents else None


def _components(wish: Wish) -> list[ComponentSource]:
    from deviceops.model.v1 import execution_pb2

    return [
        execution_pb2.ComponentSource(component_id=one.component, model_id=one.model, omitted=not one.model)
        for one in wish.components
    ]


def _outpaint(wish: Wish) -> Outpaint | None:
    from deviceops.inference.v1 import conditioning_pb2

    if wish.outpaint is None:
        return None
    left, top, right, bottom = wish.outpaint
    return conditioning_pb2.Outpaint(
        left_px=left,
        top_px=top,
        right_px=right,
        bottom_px=bottom,
        overlap_px=wish.outpaint_overlap,
        fill=conditioning_pb2.MaskFill.Value(f"MASK_FILL_{wish.outpaint_fill.upper() or 'UNSPECIFIED'}"),
    )


def _sampling(wish: Wish) -> Sampling:
    from deviceops.inference.v1 import sampling_pb2

    return sampling_pb2.Sampling(
        sampler=wish.sampler,
        sigma_schedule=wish.sigma_schedule,
        steps=wish.steps,
        guidance_scale=wish.guidance,
        distilled_guidance=wish.distilled_guidance,
        image_guidance_scale=wish.image_guidance,
        guidance_rescale=wish.guidance_rescale,
        first_step=wish.first_step,
        last_step=wish.last_step,
        seed=wish.seed,
        seed_variation=None
        if wish.variation is None
        else sampling_pb2.SeedVariation(seed=wish.variation_seed, strength=wish.variation),
    )
