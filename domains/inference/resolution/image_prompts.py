"""Makes every choice that the image prompts of a generation leave open, with their models and pictures."""

from collections.abc import Iterator, Sequence

import msgspec

from domains.errors import ErrorReason, FailedPrecondition, InvalidRequest, Violation
from domains.inference.controls import UsedPicture
from domains.inference.generation import Generation
from domains.inference.image_prompts import MODES, ImagePrompt, ImagePromptMode, ResolvedImagePrompt
from domains.inference.input_picture import InputPicture
from domains.inference.resolution.adapters import check_adapter
from domains.model.image_encoders import Encoder, Need
from domains.model.kind import ModelKind
from domains.model.model import Model


class ReadImagePrompt(msgspec.Struct, frozen=True, kw_only=True):
    """What was read for an image prompt from files and blobs."""

    model: Model
    """The catalogue's entry, with the hash of its weights."""
    encoder: Encoder | Need | None
    """The image encoder, with the hash of its weights; what is needed where there is none. None: the model is no IP-Adapter
    that can be used."""
    images: tuple[InputPicture, ...]
    region: InputPicture | None = None
    negative_image: InputPicture | None = None


def resolved_image_prompts(
    asked: Generation, model: Model, read: Sequence[ReadImagePrompt]
) -> tuple[ResolvedImagePrompt, ...]:
    """The image prompts with every choice made.

    Raises MODEL_INCOMPATIBLE for a model that is no IP-Adapter or is of another family; COMPONENT_MISSING without the image
    encoder that it reads with; UNSUPPORTED_COMBINATION for a mode that the family does not have.
    """
    for one in read:
        check_adapter(one.model, model, ModelKind.IMAGE_PROMPT_ADAPTER)
    if wrong := [*_other_modes(asked.image_prompts, model)]:
        raise InvalidRequest(wrong, ErrorReason.UNSUPPORTED_COMBINATION, model_id=model.id)
    return tuple(
        _resolved(prompt, one, place) for place, (prompt, one) in enumerate(zip(asked.image_prompts, read, strict=True))
    )


def _other_modes(prompts: Sequence[ImagePrompt], model: Model) -> Iterator[Violation]:
    able = MODES.get(model.family, (ImagePromptMode.CONTENT_AND_STYLE,))
    for place, prompt in enumerate(prompts):
        if prompt.mode not in able:
            known = ", ".join(f"IMAGE_PROMPT_MODE_{one.upper()}" for one in able)
            message = f"which layers carry the {prompt.mode} is not known for models of the family {model.family}"
            path = f"generation.image_prompts[{place}].mode"
            yield Violation(field=path, message=f"{message}; known: {known}", allowed=known)


def _resolved(prompt: ImagePrompt, read: ReadImagePrompt, place: int) -> ResolvedImagePrompt:
    encoder = read.encoder
    if not isinstance(encoder, Encoder):
        needs = "an image encoder" if encoder is None else encoder.told
        message = f"IP-Adapter {read.model.id} needs {needs}, and no model here is one; add it and scan again"
        path = f"generation.image_prompts[{place}].model_id"
        raise FailedPrecondition(
            message, ErrorReason.COMPONENT_MISSING, field=path, model_id=read.model.id, component="image_encoder"
        )
    return ResolvedImagePrompt(
        model_id=read.model.id,
        model_sha256=read.model.sha256,
        encoder_model_id=encoder.model.id,
        encoder_sha256=encoder.model.sha256,
        edge_px=encoder.edge_px,
        cut=encoder.cut,
        images=tuple(map(_used, read.images)),
        weight=1.0 if prompt.weight is None else prompt.weight,
        start_ratio=prompt.start_ratio or 0.0,
        end_ratio=1.0 if prompt.end_ratio is None else prompt.end_ratio,
        region=None if read.region is None else _used(read.region),
        mode=prompt.mode,
        negative_image=None if read.negative_image is None else _used(read.negative_image),
    )


def _used(picture: InputPicture) -> UsedPicture:
    return UsedPicture(blob_id=picture.blob_id, sha256=picture.sha256)
