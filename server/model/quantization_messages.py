"""Checks the quantization that a load asks for, and converts those that devices can hold to messages."""

from collections.abc import Sequence

from deviceops.common.v1 import field_capability_pb2
from deviceops.model.v1 import execution_pb2
from domains.errors import NotSupported, Violation, excerpt
from domains.model.weight_quantization import OTHER_QUANTIZATIONS, QUANTIZATIONS, UNQUANTIZED

_ALLOWED = ", ".join((UNQUANTIZED, *QUANTIZATIONS))


def to_quantizations(here: Sequence[str]) -> list[field_capability_pb2.OptionCapability]:
    """All that the contract names, with what makes the others unavailable. `here`: those that the devices can widen."""
    missing = {
        **dict.fromkeys(QUANTIZATIONS, "the devices cannot widen its numbers; choose another one, or other devices"),
        **dict.fromkeys(OTHER_QUANTIZATIONS, f"this server has no code for it; choose {' or '.join(QUANTIZATIONS)}"),
    }
    names = {UNQUANTIZED: "None", **QUANTIZATIONS, **OTHER_QUANTIZATIONS}
    told = {word: "" if word in (UNQUANTIZED, *here) else missing[word] for word in names}
    return [
        field_capability_pb2.OptionCapability(
            id=word, display_name=names[word], available=not why, unavailable_message=why
        )
        for word, why in told.items()
    ]


def quantization_violations(asked: execution_pb2.ExecutionOptions, path: str) -> list[Violation]:
    """The violation of a word that is no quantization."""
    if asked.quantization in ("", UNQUANTIZED, *QUANTIZATIONS, *OTHER_QUANTIZATIONS):
        return []
    text = f"{excerpt(asked.quantization)!r} is no quantization; choose one of {_ALLOWED}"
    return [Violation(field=f"{path}.quantization", message=text, allowed=_ALLOWED)]


def check_quantization(asked: execution_pb2.ExecutionOptions, path: str) -> None:
    """Raise NOT_SUPPORTED_ON_DEVICE for a quantization that this engine does not have on any device."""
    if asked.quantization in OTHER_QUANTIZATIONS:
        message = (
            f"{path}.quantization: no device here stores weights as {asked.quantization}; choose one of {_ALLOWED}"
        )
        raise NotSupported(message, field=f"{path}.quantization", quantization=asked.quantization, allowed=_ALLOWED)
