"""Converts regions to and from messages."""

from collections.abc import Sequence

from deviceops.common.v1 import image_pb2
from deviceops.inference.v1 import conditioning_pb2, resolved_generation_pb2
from deviceops.postprocessing.v1 import postprocessing_pb2
from domains.inference.controls import PictureSource
from domains.inference.generation import ResolvedGeneration
from domains.inference.regions import Rectangle, Region, ResolvedRegion
from server.inference.adapter_messages import from_lora, to_lora


def from_region(message: conditioning_pb2.RegionalPrompt) -> Region:
    """The region of a request."""
    box = message.rectangle
    return Region(
        mask=PictureSource(blob_id=message.mask.blob_id, data=message.mask.data) if message.HasField("mask") else None,
        rectangle=Rectangle(left_px=box.left_px, top_px=box.top_px, width_px=box.width_px, height_px=box.height_px)
        if message.HasField("rectangle")
        else None,
        prompt=message.prompt,
        negative_prompt=message.negative_prompt,
        weight=message.weight if message.HasField("weight") else None,
        start_ratio=message.start_ratio if message.HasField("start_ratio") else None,
        end_ratio=message.end_ratio if message.HasField("end_ratio") else None,
        loras=tuple(map(from_lora, message.loras)),
    )


def to_region(region: Region | ResolvedRegion) -> conditioning_pb2.RegionalPrompt:
    """The message of a region, as the caller asked for it or with every choice made."""
    box = region.rectangle
    return conditioning_pb2.RegionalPrompt(
        mask=None if region.mask is None else image_pb2.ImageInput(blob_id=region.mask.blob_id),
        rectangle=None
        if box is None
        else postprocessing_pb2.PixelBox(
            left_px=box.left_px, top_px=box.top_px, width_px=box.width_px, height_px=box.height_px
        ),
        prompt=region.prompt,
        negative_prompt=region.negative_prompt,
        weight=region.weight,
        start_ratio=region.start_ratio,
        end_ratio=region.end_ratio,
        loras=map(to_lora, region.loras),
    )


def region_pictures(resolved: ResolvedGeneration) -> Sequence[resolved_generation_pb2.UsedImage]:
    """The masks of the regions."""
    return [
        resolved_generation_pb2.UsedImage(
            field=f"regions[{place}].mask", blob_id=one.mask.blob_id, sha256=one.mask.sha256
        )
        for place, one in enumerate(resolved.regions)
        if one.mask is not None
    ]
