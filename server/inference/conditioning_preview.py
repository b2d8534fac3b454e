"""InferenceService: PreviewConditioning."""

from collections.abc import Iterable
from typing import Any

import grpc
import msgspec

from deviceops.common.v1 import error_pb2, image_pb2, job_event_pb2
from deviceops.inference.v1 import conditioning_preview_pb2, generation_pb2, inference_service_pb2
from domains import limits
from domains.errors import ErrorReason, Violation
from domains.inference.prompts import PromptReading
from domains.processing.conditioning_preview import ConditioningPreviews
from domains.processing.control_preview import ShownMap
from domains.processing.mask_preview import MaskAnalysis
from server import convert
from server.fitted import fitted
from server.inference.generation_messages import from_generation
from server.scrub import scrubbed

Context = grpc.aio.ServicerContext[Any, Any]

_LOOKED_AT = (
    *("prompt", "negative_prompt", "second_prompt", "second_negative_prompt", "third_prompt", "third_negative_prompt"),
    *(
        "prompt_syntax",
        "long_prompt",
        "clip_skip",
        "blended_prompts",
        "regions",
        "textual_inversions",
        "mask",
        "controls",
        "reference_images",
    ),
    *("model_id", "loaded_model_id", "width_px", "height_px"),
)
"""Fields that are looked at, beside the guidance, which decides whether a negative prompt is read."""


_READING_BYTES = 128 * 1024
"""Largest message of a reading: a prompt of 32 KiB in which every second letter has a weight has a larger one."""


class ConditioningMethods:
    """The method that tells how inputs are read."""

    def __init__(self, conditioning: ConditioningPreviews) -> None:
        self._conditioning = conditioning

    async def PreviewConditioning(
        self, request: inference_service_pb2.PreviewConditioningRequest, context: Context
    ) -> inference_service_pb2.PreviewConditioningResponse:
        """Tell how the inputs of a generation are read."""
        given = from_generation(_looked_at(request.generation))
        refuse_placement(request.devices)
        convert.check_nodes(request.devices)
        told = await self._conditioning.of(given, tuple(request.devices.device_ids))
        return inference_service_pb2.PreviewConditioningResponse(
            prompts=[_bounded(to_reading(one)) for one in told.prompts],
            control_maps=map(to_control_map, told.maps),
            mask=None if told.mask is None else to_mask_analysis(told.mask),
            findings=[
                *_findings(told.refused, error_pb2.SEVERITY_ERROR),
                *_findings(told.odd, error_pb2.SEVERITY_WARNING),
            ],
        )


def refuse_placement(selector: job_event_pb2.DeviceSelector) -> None:
    """Raise for device selectors that this server does not serve."""
    unserved = convert.unserved_options(job_event_pb2.JobOptions(devices=selector), "")
    convert.refuse((), [msgspec.structs.replace(one, field=one.field.removeprefix(".")) for one in unserved])


def _looked_at(asked: generation_pb2.Generation) -> generation_pb2.Generation:
    """What the preview reads of a generation."""
    found = generation_pb2.Generation()
    for field, value in asked.ListFields():
        if field.name in _LOOKED_AT:
            part = generation_pb2.Generation(**{field.name: value})
            found.MergeFrom(part)
    # The mask's position and the maps' sizes depend on the picture.
    if (asked.HasField("mask") or asked.controls) and asked.HasField("init_image"):
        found.init_image.CopyFrom(asked.init_image)
    if asked.sampling.HasField("guidance_scale"):
        found.sampling.guidance_scale = asked.sampling.guidance_scale
    return found


def to_reading(reading: PromptReading) -> conditioning_preview_pb2.PromptReading:
    """The message of how a prompt is read."""
    return conditioning_preview_pb2.PromptReading(
        field=reading.field,
        encoder=reading.encoder,
        segments=[
            conditioning_preview_pb2.PromptSegment(
                text=one.text, weight=one.weight, tokens=one.tokens, window=one.window, truncated=one.truncated
            )
            for one in reading.segments
        ],
        token_count=reading.token_count,
        truncated_token_count=reading.truncated_token_count,
        window_tokens=reading.window_tokens,
    )


def _bounded(reading: conditioning_preview_pb2.PromptReading) -> conditioning_preview_pb2.PromptReading:
    """The reading without its last segments, if it is too large for an answer; its counts stay those of the whole."""
    while (size := reading.ByteSize()) > _READING_BYTES:
        del reading.segments[len(reading.segments) * _READING_BYTES // size - 1 :]
    return reading


def to_mask_analysis(found: MaskAnalysis) -> conditioning_preview_pb2.MaskAnalysis:
    """The message of what a mask covers."""
    return conditioning_preview_pb2.MaskAnalysis(
        painted_ratio=found.painted_ratio,
        region_count=found.region_count,
        edge_density_ratio=found.edge_density_ratio,
        file=_to_file(found),
    )


def to_control_map(found: ShownMap) -> conditioning_preview_pb2.ControlMap:
    """The message of a map."""
    return conditioning_preview_pb2.ControlMap(control_index=found.index, file=_to_file(found))


def _to_file(found: MaskAnalysis | ShownMap) -> image_pb2.ImageFile:
    return image_pb2.ImageFile(
        blob_id=found.blob.id,
        media_type=found.blob.media_type,
        size=image_pb2.ImageSize(width_px=found.width_px, height_px=found.height_px),
        size_bytes=found.blob.size_bytes,
        sha256=found.blob.sha256,
    )


def _findings(told: Iterable[Violation], severity: error_pb2.Severity.ValueType) -> list[error_pb2.Finding]:
    reason = convert.to_reason(ErrorReason.INVALID_FIELD)
    return [
        fitted(
            error_pb2.Finding(severity=severity, reason=reason, field=one.field, message=scrubbed(one.message)),
            limits.FINDING_BYTES,
        )
        for one in told
    ]
