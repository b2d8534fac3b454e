"""Converts generations to and from messages.

`from_generation` refuses by path every field of the contract that this server does not serve yet (`domains.inference.fields`
lists those that it does): a request is carried out as it was asked, or not at all.
"""

from typing import Any

from deviceops.common.v1 import image_pb2
from deviceops.inference.v1 import conditioning_pb2, generation_pb2, resolved_generation_pb2, sampling_pb2
from deviceops.model.v1 import execution_pb2
from domains.inference.checks.request import Checked, checked, preview_violations
from domains.inference.family_fields import task_of
from domains.inference.fields import FIELDS
from domains.inference.generation import Determinism, Generation, Previews, ResolvedGeneration, Sampling, WeightedPrompt
from domains.inference.init_image import InitImage, ResolvedInitImage
from domains.inference.limits import DEFAULT_PREVIEW_EDGE_PX
from domains.inference.prompts import LongPrompt, Syntax
from domains.model.execution import AS_USUAL, BY_COMPONENT, BY_LAYER, Execution
from domains.model.folder_family import DENOISERS
from domains.model.weight_quantization import UNQUANTIZED
from domains.processing.jobs.event import GenerationResult
from server import convert
from server.inference.adapter_messages import from_lora, from_word, to_lora, to_word, used_adapters
from server.inference.component_messages import from_component, to_component, used_components
from server.inference.control_messages import (
    FIT_NUMBERS,
    FITS,
    READ,
    from_control,
    to_control,
    used_controls,
    used_pictures,
)
from server.inference.encode_messages import from_encode, to_encode, unserved_encode
from server.inference.guidance_messages import from_guidance, guidance_fields, resolved_guidance_fields
from server.inference.image_prompt_messages import (
    from_image_prompt,
    image_prompt_pictures,
    to_image_prompt,
    used_for_image_prompts,
)
from server.inference.mask_messages import from_mask, from_outpaint, to_mask, to_outpaint
from server.inference.own_walk_messages import from_own_walk, from_step_range, own_walk_fields, step_range_fields
from server.inference.pass_messages import (
    from_detail,
    from_hires,
    from_latents,
    from_refiner,
    to_detail,
    to_filled_latents,
    to_hires,
    to_latents,
    to_refiner,
    used_in_passes,
)
from server.inference.reference_messages import from_reference, to_reference, used_references
from server.inference.region_messages import from_region, region_pictures, to_region
from server.inference.size_messages import from_sizes, to_sizes
from server.inference.variation_messages import from_variation, to_variation
from server.model.way_messages import way_fields
from server.unserved import check_served
from server.version import SERVER_VERSION

_SERVED = {
    path: () if path in ("init_image.fit", "reference_images.fit") else field.allowed for path, field in FIELDS.items()
} | READ
"""Every fit passes here: the check refuses a fit that no input picture takes, with the contract's reason."""
_DETERMINISM = {
    generation_pb2.DETERMINISM_FAST: Determinism.FAST,
    generation_pb2.DETERMINISM_EXACT: Determinism.EXACT,
}
"""An unspecified one is FAST; `check_served` refuses the unknown."""
_SYNTAXES = {
    generation_pb2.PROMPT_SYNTAX_PLAIN: Syntax.PLAIN,
    generation_pb2.PROMPT_SYNTAX_A1111: Syntax.A1111,
    generation_pb2.PROMPT_SYNTAX_COMFYUI: Syntax.COMFYUI,
}
_SYNTAX_NUMBERS = {one: number for number, one in _SYNTAXES.items()}
_LONG_PROMPTS = {
    generation_pb2.LONG_PROMPT_TRUNCATE: LongPrompt.TRUNCATE,
    generation_pb2.LONG_PROMPT_CHUNK: LongPrompt.CHUNK,
    generation_pb2.LONG_PROMPT_REFUSE: LongPrompt.REFUSE,
}
_LONG_NUMBERS = {one: number for number, one in _LONG_PROMPTS.items()}
_MESSAGE_OF = {one: message for message, one in _DETERMINISM.items()}


def from_generation(message: generation_pb2.Generation, path: str = "generation") -> Checked:
    """The generation of a request. Raises all violations, unserved fields included."""
    given = checked(_asked(message))
    unserved = unserved_encode(message.output, f"{path}.output")
    check_served(message, path, _SERVED, given.wrong.error(), unserved)
    return given


def _asked(message: generation_pb2.Generation) -> Generation:
    sampling = message.sampling
    return Generation(
        prompt=message.prompt,
        negative_prompt=message.negative_prompt,
        model_id=message.model_id,
        loaded_model_id=message.loaded_model_id,
        width_px=message.width_px if message.HasField("width_px") else None,
        height_px=message.height_px if message.HasField("height_px") else None,
        image_count=message.image_count or None,
        sampling=Sampling(
            sampler=sampling.sampler,
            sigma_schedule=sampling.sigma_schedule,
            steps=sampling.steps if sampling.HasField("steps") else None,
            **from_guidance(sampling),
            seed=sampling.seed if sampling.HasField("seed") else None,
            seeds=tuple(sampling.seeds),
            eta=sampling.eta if sampling.HasField("eta") else None,
            seed_variation=from_variation(sampling.seed_variation) if sampling.HasField("seed_variation") else None,
            own=from_own_walk(sampling),
            part=from_step_range(sampling),
        ),
        output=from_encode(message.output),
        previews=_from_previews(message.previews),
        init_image=_from_init_image(message.init_image) if message.HasField("init_image") else None,
        mask=from_mask(message.mask) if message.HasField("mask") else None,
        outpaint=from_outpaint(message.outpaint) if message.HasField("outpaint") else None,
        seamless_x=message.seamless_x,
        seamless_y=message.seamless_y,
        determinism=_DETERMINISM.get(message.determinism, Determinism.FAST),
        size_conditioning=from_sizes(message.size_conditioning) if message.HasField("size_conditioning") else None,
        init_latents=from_latents(message.init_latents) if message.HasField("init_latents") else None,
        return_latents=message.return_latents,
        refiner=from_refiner(message.refiner) if message.HasField("refiner") else None,
        hires_pass=from_hires(message.hires_pass) if message.HasField("hires_pass") else None,
        detail_passes=tuple(map(from_detail, message.detail_passes)),
        components=tuple(map(from_component, message.components)),
        loras=tuple(map(from_lora, message.loras)),
        controls=tuple(map(from_control, message.controls)),
        image_prompts=tuple(map(from_image_prompt, message.image_prompts)),
        regions=tuple(map(from_region, message.regions)),
        references=tuple(map(from_reference, message.reference_images)),
        textual_inversions=tuple(map(from_word, message.textual_inversions)),
        prompt_syntax=_SYNTAXES.get(message.prompt_syntax, Syntax.PLAIN),
        long_prompt=_LONG_PROMPTS.get(message.long_prompt, LongPrompt.TRUNCATE),
        second_prompt=message.second_prompt,
        second_negative_prompt=message.second_negative_prompt,
        third_prompt=message.third_prompt,
        third_negative_prompt=message.third_negative_prompt,
        clip_skip=message.clip_skip if message.HasField("clip_skip") else None,
        blended_prompts=tuple(
            WeightedPrompt(prompt=one.prompt, weight=one.weight if one.HasField("weight") else None)
            for one in message.blended_prompts
        ),
    )


def _from_init_image(message: conditioning_pb2.InitImage) -> InitImage:
    return InitImage(
        blob_id=message.image.blob_id,
        data=message.image.data,
        strength=message.strength if message.HasField("strength") else None,
        fit=FITS.get(message.fit),
    )


def _to_init_image(
    asked: InitImage | ResolvedInitImage | None, *, strengthless: bool = False
) -> conditioning_pb2.InitImage | None:
    """`strengthless`: leave out the strength, because the sampling says which step is the first."""
    if asked is None:
        return None
    fit = image_pb2.IMAGE_FIT_UNSPECIFIED if asked.fit is None else FIT_NUMBERS[asked.fit]
    source = image_pb2.ImageInput(blob_id=asked.blob_id)
    strength = None if strengthless else asked.strength
    return conditioning_pb2.InitImage(image=source, strength=strength, fit=fit)


def _from_previews(message: generation_pb2.PreviewOptions) -> Previews:
    return Previews(every_steps=message.every_steps, max_edge_px=message.max_edge_px or DEFAULT_PREVIEW_EDGE_PX)


def from_previews(message: generation_pb2.PreviewOptions, path: str) -> Previews:
    """The previews that a watcher asks for. Raises INVALID_FIELD with all violations."""
    wanted = _from_previews(message)
    convert.refuse(list(preview_violations(wanted, path)))
    return wanted


def to_generation(asked: Generation) -> generation_pb2.Generation:
    """The message of a generation, as the caller asked for it."""
    return generation_pb2.Generation(
        prompt=asked.prompt,
        negative_prompt=asked.negative_prompt,
        model_id=asked.model_id,
        loaded_model_id=asked.loaded_model_id,
        width_px=asked.width_px,
        height_px=asked.height_px,
        image_count=asked.image_count or 0,
        sampling=sampling_pb2.Sampling(
            sampler=asked.sampling.sampler,
            sigma_schedule=asked.sampling.sigma_schedule,
            steps=asked.sampling.steps,
            **guidance_fields(asked.sampling),
            seed=asked.sampling.seed,
            seeds=asked.sampling.seeds,
            eta=asked.sampling.eta,
            seed_variation=to_variation(asked.sampling.seed_variation),
            **own_walk_fields(asked.sampling.own),
            **step_range_fields(asked.sampling.part),
        ),
        output=to_encode(asked.output),
        previews=_previews(asked.previews),
        init_image=_to_init_image(asked.init_image),
        mask=to_mask(asked.mask),
        outpaint=to_outpaint(asked.outpaint),
        seamless_x=asked.seamless_x,
        seamless_y=asked.seamless_y,
        determinism=_MESSAGE_OF[asked.determinism],
        init_latents=to_latents(asked.init_latents),
        return_latents=asked.return_latents,
        refiner=to_refiner(asked.refiner),
        hires_pass=to_hires(asked.hires_pass),
        detail_passes=map(to_detail, asked.detail_passes),
        components=map(to_component, asked.components),
        loras=map(to_lora, asked.loras),
        controls=map(to_control, asked.controls),
        image_prompts=map(to_image_prompt, asked.image_prompts),
        regions=map(to_region, asked.regions),
        reference_images=map(to_reference, asked.references),
        textual_inversions=map(to_word, asked.textual_inversions),
        **_prompt_fields(asked),
    )


def _prompt_fields(told: Generation | ResolvedGeneration) -> dict[str, Any]:
    """How the prompts are read, and those for further encoders."""
    return {
        "prompt_syntax": _SYNTAX_NUMBERS[told.prompt_syntax],
        "long_prompt": _LONG_NUMBERS[told.long_prompt],
        "second_prompt": told.second_prompt,
        "second_negative_prompt": told.second_negative_prompt,
        "third_prompt": told.third_prompt,
        "third_negative_prompt": told.third_negative_prompt,
        "clip_skip": told.clip_skip,
        "size_conditioning": to_sizes(told.size_conditioning),
        "blended_prompts": [
            generation_pb2.WeightedPrompt(prompt=one.prompt, weight=one.weight) for one in told.blended_prompts
        ],
    }


def _previews(previews: Previews) -> generation_pb2.PreviewOptions:
    return generation_pb2.PreviewOptions(every_steps=previews.every_steps, max_edge_px=previews.max_edge_px)


def to_filled(resolved: ResolvedGeneration) -> generation_pb2.Generation:
    """The request with every default resolved; sent again, it asks for the same pictures."""
    return generation_pb2.Generation(
        prompt=resolved.prompt,
        negative_prompt=resolved.negative_prompt,
        model_id=resolved.model_id,
        width_px=resolved.before_px[0],
        height_px=resolved.before_px[1],
        image_count=len(resolved.seeds),
        sampling=sampling_pb2.Sampling(
            sampler=resolved.sampler,
            sigma_schedule=resolved.sigma_schedule,
            steps=None if resolved.own.steps else resolved.steps,
            **resolved_guidance_fields(resolved),
            seeds=resolved.seeds,
            eta=resolved.eta,
            seed_variation=to_variation(resolved.seed_variation),
            **own_walk_fields(resolved.own),
            **step_range_fields(resolved.part),
        ),
        output=to_encode(resolved.output),
        previews=_previews(resolved.previews),
        determinism=_MESSAGE_OF[resolved.determinism],
        init_latents=to_filled_latents(resolved),
        return_latents=resolved.return_latents,
        refiner=to_refiner(resolved.refiner),
        hires_pass=to_hires(resolved.hires_pass),
        detail_passes=map(to_detail, resolved.detail_passes),
        components=map(to_component, resolved.components),
        loras=map(to_lora, resolved.loras),
        controls=map(to_control, resolved.controls),
        image_prompts=map(to_image_prompt, resolved.image_prompts),
        regions=map(to_region, resolved.regions),
        reference_images=map(to_reference, resolved.references),
        textual_inversions=map(to_word, resolved.textual_inversions),
        **_prompt_fields(resolved),
        init_image=_to_init_image(resolved.init_image, strengthless=resolved.part.first_step is not None),
        mask=to_mask(resolved.mask),
        outpaint=to_outpaint(resolved.outpaint),
        seamless_x=resolved.seamless_x,
        seamless_y=resolved.seamless_y,
    )


def to_resolved(result: GenerationResult, device_id: str) -> resolved_generation_pb2.ResolvedGeneration:
    """The message of a result's resolved generation."""
    resolved = result.resolved
    base = resolved_generation_pb2.UsedModel(
        role="base", model_id=resolved.model_id, sha256=resolved.model_sha256, family=resolved.family
    )
    return resolved_generation_pb2.ResolvedGeneration(
        generation=to_filled(resolved),
        task=task_of(resolved),
        family=resolved.family,
        device_id=device_id,
        execution=to_execution(dict(result.precisions), result.way) if result.precisions else None,
        used_models=[
            *(base, *used_components(resolved), *used_in_passes(resolved), *used_adapters(resolved)),
            *(*used_controls(resolved), *used_for_image_prompts(resolved)),
        ],
        used_images=[
            *used_pictures(resolved),
            *image_prompt_pictures(resolved),
            *region_pictures(resolved),
            *used_references(resolved),
        ],
        server_version=SERVER_VERSION,
        libraries=result.libraries,
    )


OFFLOADS = {
    "none": execution_pb2.OFFLOAD_MODE_NONE,
    BY_COMPONENT: execution_pb2.OFFLOAD_MODE_COMPONENT,
    BY_LAYER: execution_pb2.OFFLOAD_MODE_LAYER,
}
"""By the word of `Execution`."""


def to_execution(precisions: dict[str, str], way: Execution = AS_USUAL) -> execution_pb2.ExecutionOptions:
    """The message of how a loaded model computes. `precisions`: by component, as its worker reports them. `way`: its
    offloading, and its other ways.

    The attention kernel is absent unless the load names one: torch chooses it for each call and does not report it.
    """
    denoiser = next((precisions[name] for name in DENOISERS if name in precisions), "")
    return execution_pb2.ExecutionOptions(
        precision=convert.to_precision(denoiser),
        text_encoder_precision=convert.to_precision(precisions.get("text_encoder", "")),
        vae_precision=convert.to_precision(precisions.get("vae", "")),
        quantization=way.quantization or UNQUANTIZED,
        **way_fields(way.ways.taken),
        offload=OFFLOADS.get(way.offload, execution_pb2.OFFLOAD_MODE_NONE),
        offload_budget_bytes=way.offload_budget_bytes,
    )
