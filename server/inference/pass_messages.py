"""Converts the passes beside the first one to and from messages."""

from collections.abc import Sequence

from deviceops.common.v1 import image_pb2
from deviceops.inference.v1 import conditioning_pb2, generated_image_pb2, passes_pb2, resolved_generation_pb2
from deviceops.postprocessing.v1 import postprocessing_pb2
from domains.inference.details import Detailed, DetailPass, ResolvedDetail
from domains.inference.generation import ResolvedGeneration
from domains.inference.hires import HiresPass, ResolvedHires
from domains.inference.latents import InitLatents
from domains.inference.refiner import RefinerPass, ResolvedRefiner
from domains.inference.resampling import Resampling

_FILTERS = {
    image_pb2.RESAMPLING_FILTER_LANCZOS: Resampling.LANCZOS,
    image_pb2.RESAMPLING_FILTER_BICUBIC: Resampling.BICUBIC,
    image_pb2.RESAMPLING_FILTER_BILINEAR: Resampling.BILINEAR,
    image_pb2.RESAMPLING_FILTER_AREA: Resampling.AREA,
    image_pb2.RESAMPLING_FILTER_NEAREST: Resampling.NEAREST,
}
"""An unspecified filter is LANCZOS for pixels and BICUBIC for latents; `check_served` refuses the unknown."""
_NUMBERS = {one: number for number, one in _FILTERS.items()}


def from_hires(message: passes_pb2.HiresPass) -> HiresPass:
    """The second pass of a request."""
    target, by = message.WhichOneof("target"), message.WhichOneof("enlargement")
    return HiresPass(
        scale=message.scale if target == "scale" else None,
        size_px=(message.size.width_px, message.size.height_px) if target == "size" else None,
        latent_filter=_FILTERS.get(message.latent_filter) if by == "latent_filter" else None,
        pixel_filter=_FILTERS.get(message.pixel_filter, Resampling.LANCZOS) if by == "pixel_filter" else None,
        upscaler_model_id=message.upscaler_model_id if by == "upscaler_model_id" else None,
        strength=message.strength if message.HasField("strength") else None,
        steps=message.steps if message.HasField("steps") else None,
        sampler=message.sampler,
        sigma_schedule=message.sigma_schedule,
        guidance_scale=message.guidance_scale if message.HasField("guidance_scale") else None,
        prompt=message.prompt,
        negative_prompt=message.negative_prompt,
        model_id=message.model_id,
    )


def from_refiner(message: passes_pb2.RefinerPass) -> RefinerPass:
    """The refiner of a request."""
    return RefinerPass(
        model_id=message.model_id,
        start_ratio=message.start_ratio if message.HasField("start_ratio") else None,
        aesthetic_score=message.aesthetic_score if message.HasField("aesthetic_score") else None,
        negative_aesthetic_score=(
            message.negative_aesthetic_score if message.HasField("negative_aesthetic_score") else None
        ),
    )


def to_refiner(refiner: RefinerPass | ResolvedRefiner | None) -> passes_pb2.RefinerPass | None:
    """The message of a refiner, as the caller asked for it or with every choice made."""
    if refiner is None:
        return None
    return passes_pb2.RefinerPass(
        model_id=refiner.model_id,
        start_ratio=refiner.start_ratio,
        aesthetic_score=refiner.aesthetic_score,
        negative_aesthetic_score=refiner.negative_aesthetic_score,
    )


def used_in_passes(resolved: ResolvedGeneration) -> Sequence[resolved_generation_pb2.UsedModel]:
    """The models of later passes that took part."""
    refiner, hires = resolved.refiner, resolved.hires_pass
    named = [("refiner", refiner.model_id, refiner.model_sha256, refiner.family)] if refiner else []
    named += [("hires", hires.model_id, hires.model_sha256, resolved.family)] if hires and hires.model_id else []
    if hires and hires.upscaler_model_id:
        named.append(("upscaler", hires.upscaler_model_id, hires.upscaler_sha256, ""))
    detectors = ((one.detector_model_id, one.detector_sha256) for one in resolved.detail_passes)
    named += [("detector", *one, "") for one in dict.fromkeys(detectors)]
    return [
        resolved_generation_pb2.UsedModel(role=role, model_id=model_id, sha256=sha256, family=family)
        for role, model_id, sha256, family in named
    ]


def from_detail(message: passes_pb2.DetailPass) -> DetailPass:
    """A detail pass of a request."""
    finds = message.detector
    return DetailPass(
        detector_model_id=message.detector_model_id,
        label=finds.label,
        min_confidence=finds.min_confidence_ratio if finds.HasField("min_confidence_ratio") else None,
        min_area=finds.min_area_ratio if finds.HasField("min_area_ratio") else None,
        max_area=finds.max_area_ratio if finds.HasField("max_area_ratio") else None,
        max_count=finds.max_count,
        prompt=message.prompt,
        negative_prompt=message.negative_prompt,
        strength=message.strength if message.HasField("strength") else None,
        steps=message.steps if message.HasField("steps") else None,
        dilation_px=message.dilation_px if message.HasField("dilation_px") else None,
        blur_px=message.blur_px if message.HasField("blur_px") else None,
        padding_px=message.padding_px if message.HasField("padding_px") else None,
        edge_px=message.edge_px,
    )


def to_detail(detail: DetailPass | ResolvedDetail) -> passes_pb2.DetailPass:
    """The message of a detail pass, as the caller asked for it or with every choice made."""
    resolved = isinstance(detail, ResolvedDetail)
    finds = detail.wanted if resolved else detail
    return passes_pb2.DetailPass(
        detector_model_id=detail.detector_model_id,
        detector=postprocessing_pb2.DetectorOptions(
            label=finds.label,
            min_confidence_ratio=finds.min_confidence,
            min_area_ratio=finds.min_area,
            max_area_ratio=finds.max_area,
            max_count=finds.max_count,
        ),
        prompt=detail.prompt,
        negative_prompt=detail.negative_prompt,
        strength=detail.strength,
        steps=detail.steps,
        dilation_px=detail.dilation_px,
        blur_px=detail.blur_px,
        padding_px=detail.padding_px,
        edge_px=max(detail.width_px, detail.height_px) if resolved else detail.edge_px,
    )


def to_found(found: Detailed) -> generated_image_pb2.DetailFind:
    """The message of what a detail pass has found."""
    find = found.find
    box = postprocessing_pb2.PixelBox(
        left_px=find.left_px, top_px=find.top_px, width_px=find.width_px, height_px=find.height_px
    )
    told = postprocessing_pb2.DetectedObject(label=find.label, confidence_ratio=find.confidence, box=box)
    return generated_image_pb2.DetailFind(pass_index=found.pass_index, found=told)


def from_latents(message: conditioning_pb2.LatentInput) -> InitLatents:
    """The latents of a request."""
    return InitLatents(blob_id=message.blob_id, strength=message.strength if message.HasField("strength") else None)


def to_latents(asked: InitLatents | None) -> conditioning_pb2.LatentInput | None:
    """The message of latents, as the caller asked for them."""
    return None if asked is None else conditioning_pb2.LatentInput(blob_id=asked.blob_id, strength=asked.strength)


def to_filled_latents(resolved: ResolvedGeneration) -> conditioning_pb2.LatentInput | None:
    """The message of latents with every choice made. A first step replaces the strength."""
    latents = resolved.init_latents
    if latents is None:
        return None
    strength = latents.strength if resolved.part.first_step is None else None
    return conditioning_pb2.LatentInput(blob_id=latents.blob_id, strength=strength)


def to_hires(hires: HiresPass | ResolvedHires | None) -> passes_pb2.HiresPass | None:
    """The message of a second pass, as the caller asked for it or with every choice made."""
    if hires is None:
        return None
    message = passes_pb2.HiresPass(
        strength=hires.strength,
        steps=hires.steps,
        sampler=hires.sampler,
        sigma_schedule=hires.sigma_schedule,
        guidance_scale=hires.guidance_scale,
        prompt=hires.prompt,
        negative_prompt=hires.negative_prompt,
        model_id=hires.model_id,
    )
    if isinstance(hires, ResolvedHires):
        message.size.width_px, message.size.height_px = hires.width_px, hires.height_px
        if hires.upscaler_model_id:
            message.upscaler_model_id = hires.upscaler_model_id
            return message
        by = "pixel_filter" if hires.of_pixels else "latent_filter"
        setattr(message, by, _NUMBERS[hires.filter])
        return message
    if hires.scale is not None:
        message.scale = hires.scale
    if hires.size_px is not None:
        message.size.width_px, message.size.height_px = hires.size_px
    if hires.upscaler_model_id:
        message.upscaler_model_id = hires.upscaler_model_id
    for name in ("latent_filter", "pixel_filter"):
        if (by_filter := getattr(hires, name)) is not None:
            setattr(message, name, _NUMBERS[by_filter])
    return message
