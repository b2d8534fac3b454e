"""Refuses ControlNets that do not fit a model, and maps that a ControlNet does not read."""

from collections.abc import Container

from torch import Tensor

from domains.errors import ErrorReason, FailedPrecondition, InvalidRequest, Violation


class Misfits:
    """Collects in what a ControlNet differs from what a model needs."""

    def __init__(self, control_id: str, model_id: str) -> None:
        self._control_id, self._model_id = control_id, model_id
        self._found: list[str] = []

    def compare(self, name: str, theirs: object, ours: object) -> None:
        """Note a value that must be the model's."""
        if theirs != ours:
            self._found.append(f"{name} {theirs} where the model has {ours}")

    def allow(self, name: str, theirs: int, allowed: Container[int]) -> None:
        """Note a number that is none of the allowed ones."""
        if theirs not in allowed:
            told = f"{allowed.start}..{allowed.stop - 1}" if isinstance(allowed, range) else f"{allowed}"
            self._found.append(f"{name} {theirs} where {told} can be used")

    def refuse(self) -> None:
        """Raise MODEL_INCOMPATIBLE if there is a difference."""
        if not self._found:
            return
        has = ", ".join(self._found)
        message = (
            f"ControlNet {self._control_id} does not fit model {self._model_id}: it has {has}; name one for its family"
        )
        facts = {"control_model_id": self._control_id, "model_id": self._model_id}
        raise FailedPrecondition(message, ErrorReason.MODEL_INCOMPATIBLE, **facts)


def refuse_hidden(hidden: Tensor | None, control_id: str) -> None:
    """Raise UNSUPPORTED_COMBINATION for a map that marks missing pixels."""
    if hidden is None:
        return
    message = f"marks a part as missing, which ControlNet {control_id} does not read; name one made for inpainting"
    raise InvalidRequest([_of_map(message)], ErrorReason.UNSUPPORTED_COMBINATION, model_id=control_id)


def refuse_seen(hidden: Tensor | None, control_id: str) -> Tensor:
    """The missing pixels of a map. Raises UNSUPPORTED_COMBINATION if it marks none, for a ControlNet that needs them."""
    if hidden is not None:
        return hidden
    message = f"must be `inpaint`: ControlNet {control_id} is made for inpainting, and reads which part is missing"
    raise InvalidRequest([_of_map(message)], ErrorReason.UNSUPPORTED_COMBINATION, model_id=control_id)


def _of_map(message: str) -> Violation:
    return Violation(field="generation.controls.preprocessing", message=message)
