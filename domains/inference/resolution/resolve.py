"""Makes every choice that a generation left open."""

import secrets
from functools import partial

from msgspec.structs import replace

from domains.errors import DataLoss, ErrorReason, FailedPrecondition, InvalidRequest, Violation
from domains.inference import limits
from domains.inference.checks.details import path_of, resolved_details
from domains.inference.checks.hires import check_model, resolved_hires, sampling_of
from domains.inference.checks.latents import part_with, resolved_latents
from domains.inference.checks.masks import for_variant, resolved_mask
from domains.inference.checks.named_models import check_named
from domains.inference.checks.outpaint import grown_size, resolved_outpaint
from domains.inference.checks.references import references_for_model
from domains.inference.checks.refiner import resolved_refiner
from domains.inference.checks.regions import resolved_regions
from domains.inference.checks.request import Checked, checked, for_family, for_model, for_sampler
from domains.inference.checks.steps import check_steps
from domains.inference.generation import EncodeOptions, Generation, ResolvedGeneration, WeightedPrompt
from domains.inference.guidance import default_distilled, default_guidance
from domains.inference.hires import ResolvedHires
from domains.inference.input_picture import InputPicture, resolved_picture, size_of
from domains.inference.pass_plan import passes_of, redraws_of
from domains.inference.prompt_plan import check_prompts
from domains.inference.resolution.adapters import resolved_loras, resolved_region_loras, resolved_words
from domains.inference.resolution.controls import resolved_controls
from domains.inference.resolution.image_prompts import resolved_image_prompts
from domains.inference.resolution.references import default_image_guidance, resolved_references
from domains.inference.resolution.request_files import NOTHING_READ, RequestFiles
from domains.inference.samplers import SAMPLERS, most_steps, sampler_of, schedule_of, steps_refusal
from domains.inference.seamless import seamless_violations
from domains.inference.seed_variation import resolved_variation
from domains.model.families import FAMILIES
from domains.model.kind import ModelKind
from domains.model.model import Model, ModelState

_OF_PASS = "generation.hires_pass"


def resolve(given: Checked | Generation, model: Model, read: RequestFiles = NOTHING_READ) -> ResolvedGeneration:
    """The request with every choice made. Raises all faults of the request at once, or the fault of an unfit model.

    `read`: what was read for the fields that it has.
    """
    asked, wrong = given if isinstance(given, Checked) else checked(given)
    if (error := wrong.error()) is not None:
        raise error
    usable(model)
    sampling = asked.sampling
    sampler = sampling.sampler or sampler_of(model)
    unfit = [*for_sampler(sampler, sampling), *for_model(sampler, sampling, model)]
    family = FAMILIES[model.family]
    if unfit := [
        *(*unfit, *for_family(asked, family)),
        *(*for_variant(asked, model), *seamless_violations(asked, family)),
        *references_for_model(asked, model),
    ]:
        raise InvalidRequest(unfit, ErrorReason.UNSUPPORTED_COMBINATION, model_id=model.id)
    own, part = sampling.own, part_with(asked)
    schedule = "" if own.steps else sampling.sigma_schedule or schedule_of(model, sampler)
    width_px, height_px = grown_size(asked, _size(asked, model, read.picture), model)
    chosen = sampling.seeds or seeds(sampling.seed, asked.image_count or 1)
    steps = own.steps or _steps(sampling.steps, model, sampler, schedule)
    start = None if read.picture is None else resolved_picture(asked, read.picture, steps)
    # A part that is zoomed is guided by the pictures of the whole one.
    whole_px = (start and start.own_size_px) or (width_px, height_px)
    resolved = ResolvedGeneration(
        model_id=model.id,
        model_sha256=model.sha256,
        family=model.family,
        prompt=asked.prompt,
        negative_prompt=asked.negative_prompt,
        width_px=width_px,
        height_px=height_px,
        sampler=sampler,
        sigma_schedule=schedule,
        steps=steps,
        guidance_scale=default_guidance(model) if sampling.guidance_scale is None else sampling.guidance_scale,
        eta=_eta(sampling.eta, sampler),
        distilled_guidance=default_distilled(model)
        if sampling.distilled_guidance is None
        else sampling.distilled_guidance,
        image_guidance_scale=default_image_guidance(model)
        if sampling.image_guidance_scale is None
        else sampling.image_guidance_scale,
        guidance_rescale=sampling.guidance_rescale or 0.0,
        guidance_start_ratio=sampling.guidance_start_ratio or 0.0,
        guidance_end_ratio=1.0 if sampling.guidance_end_ratio is None else sampling.guidance_end_ratio,
        seeds=chosen,
        seed_variation=resolved_variation(sampling.seed_variation, len(chosen)),
        output=_output(asked.output),
        previews=asked.previews,
        init_image=start,
        init_latents=resolved_latents(asked, read.latents, model, (width_px, height_px), len(chosen)),
        return_latents=asked.return_latents,
        refiner=resolved_refiner(asked, read.refiner, model),
        mask=resolved_mask(asked, read.mask, read.picture),
        outpaint=resolved_outpaint(asked),
        seamless_x=asked.seamless_x,
        seamless_y=asked.seamless_y,
        determinism=asked.determinism,
        size_conditioning=asked.size_conditioning if FAMILIES[model.family].reads_sizes else None,
        loras=resolved_loras(asked.loras, model, read.loras, "generation.loras"),
        textual_inversions=resolved_words(asked, model, read.words),
        controls=resolved_controls(asked, model, whole_px, chosen, read.controls),
        image_prompts=resolved_image_prompts(asked, model, read.image_prompts),
        regions=resolved_regions(asked, whole_px, read.regions, resolved_region_loras(asked, model, read.region_loras)),
        references=resolved_references(asked.references, model, (width_px, height_px), read.references),
        prompt_syntax=asked.prompt_syntax,
        long_prompt=asked.long_prompt,
        second_prompt=asked.second_prompt,
        second_negative_prompt=asked.second_negative_prompt,
        third_prompt=asked.third_prompt,
        third_negative_prompt=asked.third_negative_prompt,
        clip_skip=asked.clip_skip or 0,
        own=own,
        part=part,
        blended_prompts=tuple(
            WeightedPrompt(prompt=one.prompt, weight=1.0 if one.weight is None else one.weight)
            for one in asked.blended_prompts
        ),
    )
    check_steps(resolved)
    if asked.hires_pass is not None:
        resolved = replace(resolved, hires_pass=_hires(asked, resolved, model, read.hires, read.upscaler))
    if asked.detail_passes:
        checked_steps = partial(_steps, model=model, sampler=sampler, schedule=schedule)
        detailed = resolved_details(asked, resolved, model, read.detectors, checked_steps)
        resolved = replace(resolved, detail_passes=detailed)
    check_prompts(resolved)
    if resolved.hires_pass is not None:
        _check_pass_prompts(passes_of(resolved)[-1].resolved, _OF_PASS)
    for place, one in enumerate(redraws_of(resolved)):
        _check_pass_prompts(one, path_of(place))
    return resolved


def _steps(asked: int | None, model: Model, sampler: str, schedule: str) -> int:
    """The requested steps; else the sampler's default, or fewer if the model allows fewer. Raises `steps_refusal`."""
    most = most_steps(model, sampler, schedule)
    if asked and most and asked > most:
        raise steps_refusal(sampler, asked, most)
    recommended = recommended_steps(model, sampler)
    return asked or (min(recommended, most) if most else recommended)


def _hires(
    asked: Generation, first: ResolvedGeneration, base: Model, own: Model | None, upscaler: Model | None
) -> ResolvedHires | None:
    """The second pass. Raises the faults of its models, and of its sampling, named by its fields."""
    assert asked.hires_pass is not None
    if upscaler is not None:
        check_named(upscaler, ModelKind.UPSCALER, "upscaler", f"{_OF_PASS}.upscaler_model_id")
    if own is not None:
        check_model(own, base)
    model = own or base
    sampling = sampling_of(asked.hires_pass, replace(asked.sampling, sampler=first.sampler))
    sampler = sampling.sampler
    try:
        unfit = [*for_sampler(sampler, sampling), *for_model(sampler, sampling, model)]
        if unfit:
            raise InvalidRequest(unfit, ErrorReason.UNSUPPORTED_COMBINATION, model_id=model.id)
        steps = sampling.own.steps or _steps(
            sampling.steps or first.steps, model, sampler, sampling.sigma_schedule or schedule_of(model, sampler)
        )
    except InvalidRequest as error:
        told = [replace(one, field=one.field.replace(".sampling.", ".hires_pass.")) for one in error.violations]
        raise InvalidRequest(told, error.reason, **error.facts) from None
    return resolved_hires(asked, first, model, steps, _eta(None, sampler), own, upscaler)


def _check_pass_prompts(resolved: ResolvedGeneration, path: str) -> None:
    """Raise the faults of a later pass's prompts, named by its fields."""
    try:
        check_prompts(resolved)
    except InvalidRequest as error:
        prompts = (f"{path}.prompt", f"{path}.negative_prompt")
        told = [replace(one, field=one.field.replace("generation.", f"{path}.")) for one in error.violations]
        told = [one if one.field in prompts else replace(one, field=path) for one in told]
        raise InvalidRequest(told, error.reason, **error.facts) from None


def _eta(asked: float | None, sampler: str) -> float | None:
    """None for a sampler that has no `eta`."""
    entry = SAMPLERS[sampler]
    if not entry.eta:
        return None
    return entry.default_eta if asked is None else asked


def _output(asked: EncodeOptions) -> EncodeOptions:
    """The output options with the quality that the file will have; a lossless file has none."""
    if asked.quality is None and not asked.lossless and asked.media_type in limits.LOSSY_MEDIA_TYPES:
        return replace(asked, quality=limits.DEFAULT_QUALITY)
    return asked


def _size(asked: Generation, model: Model, picture: InputPicture | None) -> tuple[int, int]:
    """The requested size, the size of the picture to start from, or the model's native one, whose value can be missing or
    impossible."""
    if asked.width_px is not None:
        assert asked.height_px is not None, "a checked request has both edges or none"
        _aligned((asked.width_px, asked.height_px), model)
        return asked.width_px, asked.height_px
    if picture is not None:
        return size_of(picture, model)
    size = model.native_width_px, model.native_height_px
    (low, high), multiple = limits.EDGE_PX, limits.EDGE_MULTIPLE_PX
    if all(low <= edge <= high and edge % multiple == 0 for edge in size):
        return size
    own = f"has the native size {size[0]}×{size[1]}, which cannot be made" if any(size) else "does not say its size"
    text = f"model {model.id} {own}; give width_px and height_px"
    violations = [
        Violation(field=f"generation.{name}", message=text, allowed=limits.EDGES) for name in ("width_px", "height_px")
    ]
    raise InvalidRequest(violations, ErrorReason.UNSUPPORTED_COMBINATION, model_id=model.id)


def _aligned(size: tuple[int, int], model: Model) -> None:
    """Raise UNSUPPORTED_COMBINATION for edges that are no multiples of the family's."""
    multiple = FAMILIES[model.family].alignment_px
    violations = [
        Violation(
            field=f"generation.{name}",
            message=f"{edge} is no multiple of {multiple}, which {model.family} needs; {edge - edge % multiple} is",
            allowed=f"a multiple of {multiple}",
        )
        for name, edge in zip(("width_px", "height_px"), size, strict=True)
        if edge % multiple
    ]
    if violations:
        raise InvalidRequest(violations, ErrorReason.UNSUPPORTED_COMBINATION, model_id=model.id)


def recommended_steps(model: Model, sampler: str) -> int:
    """Steps of a request that names none: the sampler's own number, unless the model was distilled to fewer."""
    variant = FAMILIES[model.family].variant(model.variant)
    distilled = None if variant is None else variant.steps
    return SAMPLERS[sampler].recommended_steps if distilled is None else distilled


def seeds(first: int | None, count: int) -> tuple[int, ...]:
    """One seed a picture: consecutive from `first`, wrapping at the end of the range. `first` None: drawn below 2**32,
    so that people can type it."""
    start = secrets.randbelow(2**32) if first is None else first
    return tuple((start + index) % (limits.SEED[1] + 1) for index in range(count))


def usable(model: Model) -> None:
    """Raise if the model cannot run, with the problem that its last scan found, or as a kind that does not run alone."""
    whole(model)
    if model.kind is not ModelKind.CHECKPOINT:
        what = str(model.kind).replace("_", " ")
        message = f"model {model.id} is a {what}, which makes no pictures by itself; name a checkpoint"
        raise FailedPrecondition(message, ErrorReason.MODEL_INCOMPATIBLE, model_id=model.id, kind=what)


def whole(model: Model) -> None:
    """Raise if the model's files cannot be used, with the problem that its last scan found."""
    facts = {"model_id": model.id}
    match model.state:
        case ModelState.AVAILABLE:
            return
        case ModelState.CORRUPT:
            message = f"the files of model {model.id} are damaged: {model.problem}; replace them and scan again"
            raise DataLoss(message, ErrorReason.MODEL_CORRUPT, **facts)
        case ModelState.MISSING:
            message = f"the files of model {model.id} are gone; put them back and scan again"
            raise FailedPrecondition(message, ErrorReason.COMPONENT_MISSING, **facts)
        case ModelState.INCOMPATIBLE:
            message = f"model {model.id} cannot be used: {model.problem}"
            raise FailedPrecondition(message, ErrorReason.MODEL_INCOMPATIBLE, **facts)
