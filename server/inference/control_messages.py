"""Converts controls to and from messages."""

from collections.abc import Sequence

from deviceops.common.v1 import field_capability_pb2, image_pb2
from deviceops.inference.v1 import conditioning_pb2, resolved_generation_pb2
from domains.inference.controls import (
    Control,
    ControlBalance,
    PictureSource,
    Preprocessing,
    ResolvedControl,
    UsedPicture,
)
from domains.inference.generation import ResolvedGeneration
from domains.inference.image_fit import ImageFit
from domains.inference.preprocessors import PREPROCESSORS

FITS = {
    image_pb2.IMAGE_FIT_STRETCH: ImageFit.STRETCH,
    image_pb2.IMAGE_FIT_COVER: ImageFit.COVER,
    image_pb2.IMAGE_FIT_CONTAIN: ImageFit.CONTAIN,
    image_pb2.IMAGE_FIT_PAD: ImageFit.PAD,
}
FIT_NUMBERS = {fit: number for number, fit in FITS.items()}
_BALANCES = {
    conditioning_pb2.CONTROL_BALANCE_EVEN: ControlBalance.EVEN,
    conditioning_pb2.CONTROL_BALANCE_PROMPT: ControlBalance.PROMPT,
    conditioning_pb2.CONTROL_BALANCE_CONTROL: ControlBalance.CONTROL,
}
_BALANCE_NUMBERS = {one: number for number, one in _BALANCES.items()}
READ = {"controls.fit": (), "controls.preprocessing.line_art": (), "controls.preprocessing.inpaint": ()}
"""Fields that are served and not listed: their values are refused by the check with its own reason, or they are messages."""


def from_control(message: conditioning_pb2.ControlInput) -> Control:
    """The control of a request."""
    return Control(
        model_id=message.model_id,
        image=_source(message.image),
        preprocessing=_from_preprocessing(message.preprocessing) if message.HasField("preprocessing") else None,
        weight=message.weight if message.HasField("weight") else None,
        start_ratio=message.start_ratio if message.HasField("start_ratio") else None,
        end_ratio=message.end_ratio if message.HasField("end_ratio") else None,
        balance=_BALANCES.get(message.balance, ControlBalance.EVEN),
        control_type=message.control_type,
        fit=FITS.get(message.fit),
        region=_source(message.region) if message.HasField("region") else None,
    )


def to_control(control: Control | ResolvedControl) -> conditioning_pb2.ControlInput:
    """The message of a control, as the caller asked for it or with every choice made."""
    return conditioning_pb2.ControlInput(
        model_id=control.model_id,
        image=_to_source(control.image),
        preprocessing=None if control.preprocessing is None else _to_preprocessing(control.preprocessing),
        weight=control.weight,
        start_ratio=control.start_ratio,
        end_ratio=control.end_ratio,
        balance=_BALANCE_NUMBERS[control.balance],
        control_type=control.control_type,
        fit=image_pb2.IMAGE_FIT_UNSPECIFIED if control.fit is None else FIT_NUMBERS[control.fit],
        region=None if control.region is None else _to_source(control.region),
    )


def used_controls(resolved: ResolvedGeneration) -> Sequence[resolved_generation_pb2.UsedModel]:
    """The ControlNets and T2I adapters that took part."""
    return [
        resolved_generation_pb2.UsedModel(
            role="t2i_adapter" if one.t2i_adapter else "controlnet", model_id=one.model_id, sha256=one.model_sha256
        )
        for one in resolved.controls
    ]


def used_pictures(resolved: ResolvedGeneration) -> Sequence[resolved_generation_pb2.UsedImage]:
    """The pictures of the controls."""
    return [
        resolved_generation_pb2.UsedImage(
            field=f"controls[{place}].{name}", blob_id=picture.blob_id, sha256=picture.sha256
        )
        for place, one in enumerate(resolved.controls)
        for name, picture in (("image", one.image), ("region", one.region))
        if picture is not None
    ]


def to_preprocessors(*, served: bool) -> Sequence[field_capability_pb2.OptionCapability]:
    """The ways to make a control map, with what the unavailable ones lack. `served`: whether the family has ControlNets."""
    none = "this server computes no ControlNets of this family"
    return [
        field_capability_pb2.OptionCapability(
            id=name,
            display_name=one.display_name,
            available=served and not one.lacks,
            unavailable_message=one.lacks if served else none,
        )
        for name, one in PREPROCESSORS.items()
    ]


def _from_preprocessing(message: conditioning_pb2.ControlPreprocessing) -> Preprocessing:
    kind = message.WhichOneof("kind") or ""
    if not kind:
        return Preprocessing(kind="")
    given = getattr(message, kind)
    fields = [(field.name, value) for field, value in given.ListFields()]
    return Preprocessing(
        kind=kind,
        model_id=next((value for name, value in fields if name == "model_id"), ""),
        options=tuple((name, float(value)) for name, value in fields if name != "model_id"),
    )


def _to_preprocessing(given: Preprocessing) -> conditioning_pb2.ControlPreprocessing:
    message = conditioning_pb2.ControlPreprocessing()
    inner = getattr(message, given.kind)
    inner.SetInParent()
    entry = PREPROCESSORS[given.kind]
    for name, value in given.options:
        setattr(inner, name, int(value) if entry.options[name].whole else value)
    return message


def _source(message: image_pb2.ImageInput) -> PictureSource:
    return PictureSource(blob_id=message.blob_id, data=message.data)


def _to_source(source: PictureSource | UsedPicture) -> image_pb2.ImageInput:
    return image_pb2.ImageInput(blob_id=source.blob_id)
