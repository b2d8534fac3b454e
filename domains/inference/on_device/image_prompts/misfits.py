"""Refuses an IP-Adapter whose layers are not those of the model."""

from collections.abc import Sequence

from domains.errors import ErrorReason, FailedPrecondition

Shape = tuple[int, ...]


def refuse_misfit(ours: Sequence[Shape], theirs: Sequence[Shape], adapter_id: str, model_id: str) -> None:
    """Raise MODEL_INCOMPATIBLE unless the shapes of the adapter's layers (`theirs`) are those that the model reads with."""
    if [*ours] == [*theirs]:
        return
    if len(ours) != len(theirs):
        what = f"{len(theirs)} layers where the model has {len(ours)}"
    else:
        place = next(place for place, (one, other) in enumerate(zip(ours, theirs, strict=True)) if one != other)
        what = f"a layer {place} of {theirs[place]} where the model has {ours[place]}"
    message = f"IP-Adapter {adapter_id} does not fit model {model_id}: it has {what}; name one for its family"
    raise FailedPrecondition(message, ErrorReason.MODEL_INCOMPATIBLE, adapter_model_id=adapter_id, model_id=model_id)
