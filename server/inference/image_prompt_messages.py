"""Converts image prompts to and from messages."""

from collections.abc import Sequence

from deviceops.common.v1 import image_pb2
from deviceops.inference.v1 import conditioning_pb2, resolved_generation_pb2
from domains.inference.controls import PictureSource, UsedPicture
from domains.inference.generation import ResolvedGeneration
from domains.inference.image_prompts import ImagePrompt, ImagePromptMode, ResolvedImagePrompt

_MODES = {
    conditioning_pb2.IMAGE_PROMPT_MODE_CONTENT_AND_STYLE: ImagePromptMode.CONTENT_AND_STYLE,
    conditioning_pb2.IMAGE_PROMPT_MODE_STYLE: ImagePromptMode.STYLE,
    conditioning_pb2.IMAGE_PROMPT_MODE_COMPOSITION: ImagePromptMode.COMPOSITION,
}
"""`check_served` refuses FACE, which needs a face recogniser, and the unknown."""
_MODE_NUMBERS = {one: number for number, one in _MODES.items()}


def from_image_prompt(message: conditioning_pb2.ImagePrompt) -> ImagePrompt:
    """The image prompt of a request."""
    return ImagePrompt(
        model_id=message.model_id,
        images=tuple(map(_source, message.images)),
        weight=message.weight if message.HasField("weight") else None,
        start_ratio=message.start_ratio if message.HasField("start_ratio") else None,
        end_ratio=message.end_ratio if message.HasField("end_ratio") else None,
        region=_source(message.region) if message.HasField("region") else None,
        mode=_MODES.get(message.mode, ImagePromptMode.CONTENT_AND_STYLE),
        negative_image=_source(message.negative_image) if message.HasField("negative_image") else None,
    )


def to_image_prompt(prompt: ImagePrompt | ResolvedImagePrompt) -> conditioning_pb2.ImagePrompt:
    """The message of an image prompt, as the caller asked for it or with every choice made."""
    return conditioning_pb2.ImagePrompt(
        model_id=prompt.model_id,
        images=map(_to_source, prompt.images),
        weight=prompt.weight,
        start_ratio=prompt.start_ratio,
        end_ratio=prompt.end_ratio,
        region=None if prompt.region is None else _to_source(prompt.region),
        mode=_MODE_NUMBERS[prompt.mode],
        negative_image=None if prompt.negative_image is None else _to_source(prompt.negative_image),
    )


def used_for_image_prompts(resolved: ResolvedGeneration) -> Sequence[resolved_generation_pb2.UsedModel]:
    """The IP-Adapters that took part, and the image encoders that read their pictures."""
    used = [("ip_adapter", one.model_id, one.model_sha256) for one in resolved.image_prompts]
    used += [("image_encoder", one.encoder_model_id, one.encoder_sha256) for one in resolved.image_prompts]
    return [
        resolved_generation_pb2.UsedModel(role=role, model_id=model_id, sha256=sha256)
        for role, model_id, sha256 in dict.fromkeys(used)
    ]


def image_prompt_pictures(resolved: ResolvedGeneration) -> Sequence[resolved_generation_pb2.UsedImage]:
    """The pictures of the image prompts."""
    return [
        resolved_generation_pb2.UsedImage(
            field=f"image_prompts[{place}].{name}", blob_id=picture.blob_id, sha256=picture.sha256
        )
        for place, prompt in enumerate(resolved.image_prompts)
        for name, picture in prompt.pictures()
    ]


def _source(message: image_pb2.ImageInput) -> PictureSource:
    return PictureSource(blob_id=message.blob_id, data=message.data)


def _to_source(source: PictureSource | UsedPicture) -> image_pb2.ImageInput:
    return image_pb2.ImageInput(blob_id=source.blob_id)
