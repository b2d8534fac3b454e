"""Makes every choice that the controls of a generation leave open, with their models and pictures."""

from collections.abc import Iterator, Sequence

import msgspec

from domains.errors import ErrorReason, FailedPrecondition, InvalidRequest, Violation
from domains.inference import limits
from domains.inference.control_types import CONTROL_MODES
from domains.inference.controls import Control, Preprocessing, ResolvedControl, UsedPicture
from domains.inference.generation import Generation
from domains.inference.image_fit import ImageFit
from domains.inference.input_picture import InputPicture
from domains.inference.preprocessors import INPAINT, PREPROCESSORS
from domains.inference.resolution.adapters import check_adapter
from domains.model.detect.controls import UNION
from domains.model.kind import ModelKind
from domains.model.model import Model


class ReadControl(msgspec.Struct, frozen=True, kw_only=True):
    """What was read for a control from files and blobs."""

    model: Model
    """The catalogue's entry, with the hash of its weights."""
    image: InputPicture
    region: InputPicture | None = None


def resolved_controls(
    asked: Generation, model: Model, size_px: tuple[int, int], seeds: Sequence[int], read: Sequence[ReadControl]
) -> tuple[ResolvedControl, ...]:
    """The controls with every choice made.

    Raises MODEL_INCOMPATIBLE for a model that is no ControlNet or is of another family; COMPONENT_MISSING for a map that no
    model here makes; INVALID_FIELD for a picture of another size than the result without a `fit`.
    """
    for one in read:
        adapts = one.model.kind is ModelKind.T2I_ADAPTER
        check_adapter(one.model, model, ModelKind.T2I_ADAPTER if adapts else ModelKind.CONTROLNET)
    if wrong := [*_unmarked(asked.controls, read), *_other_types(asked.controls, read, model.family)]:
        raise InvalidRequest(wrong, ErrorReason.UNSUPPORTED_COMBINATION)
    for place, control in enumerate(asked.controls):
        _check_available(control, f"generation.controls[{place}].preprocessing")
    made = "the result" if asked.hires_pass is None else "the first pass"
    if wrong := [*_other_sizes(asked.controls, size_px, read, made), *_without_seed(asked.controls, seeds)]:
        raise InvalidRequest(wrong)
    return tuple(_resolved(control, one, seeds[0]) for control, one in zip(asked.controls, read, strict=True))


def _unmarked(controls: Sequence[Control], read: Sequence[ReadControl]) -> Iterator[Violation]:
    """Maps that mark a part as missing, for networks that read no such mark."""
    for place, (control, one) in enumerate(zip(controls, read, strict=True)):
        given = control.preprocessing
        if given is not None and given.kind == INPAINT and one.model.kind is ModelKind.T2I_ADAPTER:
            message = "marks a part as missing, which T2I adapters do not read; name a ControlNet made for inpainting"
            yield Violation(field=f"generation.controls[{place}].preprocessing.{INPAINT}", message=message)


def _other_types(controls: Sequence[Control], read: Sequence[ReadControl], family: str) -> Iterator[Violation]:
    """Types that a network is not told, and networks that must be told theirs."""
    for place, (control, one) in enumerate(zip(controls, read, strict=True)):
        told, known = control.control_type, one.model.variant == UNION
        modes = CONTROL_MODES.get(family, {})
        if (told in modes) == known and bool(told) == known:
            continue
        names = ", ".join(modes)
        several = f"must say what the map is, since {one.model.id} knows several types; known: {names}"
        message = several if known else f"must be empty: {one.model.id} knows one type of maps"
        yield Violation(
            field=f"generation.controls[{place}].control_type", message=message, allowed=names if known else "empty"
        )


def _check_available(control: Control, path: str) -> None:
    given = control.preprocessing
    if given is None:
        return
    lacks = PREPROCESSORS[given.kind].lacks
    if given.model_id and not lacks:
        lacks = "needs no model here, and this server runs none for it; leave model_id empty"
    if lacks:
        message = f"{path}.{given.kind} {lacks}"
        raise FailedPrecondition(message, ErrorReason.COMPONENT_MISSING, field=path, preprocessor=given.kind)


def _other_sizes(
    controls: Sequence[Control], size_px: tuple[int, int], read: Sequence[ReadControl], made: str
) -> Iterator[Violation]:
    for place, (control, one) in enumerate(zip(controls, read, strict=True)):
        for name, picture in (("image", one.image), ("region", one.region)):
            if picture is None or control.fit is not None or (picture.width_px, picture.height_px) == size_px:
                continue
            able = ", ".join(f.upper() for f in limits.FITS)
            has = f"has {picture.width_px}×{picture.height_px} pixels, and {made} {size_px[0]}×{size_px[1]}"
            message = f"{has}; say in `fit` how to bring it there: {able}"
            yield Violation(field=f"generation.controls[{place}].{name}", message=message)


def _without_seed(controls: Sequence[Control], seeds: Sequence[int]) -> Iterator[Violation]:
    """Maps that would differ between the pictures of a job: one map guides all of them."""
    for place, control in enumerate(controls):
        given = control.preprocessing
        if given is not None and given.kind == "shuffle" and len(seeds) > 1 and "seed" not in dict(given.options):
            message = "must be set for several pictures, since one map guides all of them"
            yield Violation(field=f"generation.controls[{place}].preprocessing.shuffle.seed", message=message)


def _resolved(control: Control, read: ReadControl, seed: int) -> ResolvedControl:
    return ResolvedControl(
        model_id=read.model.id,
        model_sha256=read.model.sha256,
        image=_used(read.image),
        fit=control.fit or ImageFit.COVER,
        preprocessing=_filled(control.preprocessing, seed),
        weight=1.0 if control.weight is None else control.weight,
        start_ratio=control.start_ratio or 0.0,
        end_ratio=1.0 if control.end_ratio is None else control.end_ratio,
        balance=control.balance,
        control_type=control.control_type,
        region=None if read.region is None else _used(read.region),
        t2i_adapter=read.model.kind is ModelKind.T2I_ADAPTER,
    )


def _filled(given: Preprocessing | None, seed: int) -> Preprocessing | None:
    if given is None:
        return None
    defaults = {name: one.default for name, one in PREPROCESSORS[given.kind].options.items()}
    if "seed" in defaults:
        defaults["seed"] = float(seed % 2**32)
    return msgspec.structs.replace(
        given, options=tuple((name, given.option(name, value)) for name, value in defaults.items())
    )


def _used(picture: InputPicture) -> UsedPicture:
    return UsedPicture(blob_id=picture.blob_id, sha256=picture.sha256)
