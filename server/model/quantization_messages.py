"""Converts the quantizations that devices can hold to messages."""

from collections.abc import Sequence

from deviceops.common.v1 import field_capability_pb2
from domains.model.weight_quantization import OTHER_QUANTIZATIONS, QUANTIZATIONS, UNQUANTIZED


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
