"""Finds fields and values that this server does not serve; a request with one is refused, never carried out in part."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import msgspec
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message

from domains.errors import InvalidRequest, NotServed, Violation

Served = Mapping[str, Sequence[str]]
"""By path of a field, without list indexes: the names of its enum's values that are served; empty: any value."""
_TEXT = "this server does not serve it yet; GetInferenceCapabilities lists the fields that it serves"


class SetField(msgspec.Struct, frozen=True):
    """A field that is set, or an empty message."""

    path: str
    """With list indexes: `loras[0].weight`."""
    plain_path: str
    """Without list indexes: `loras.weight`."""
    descriptor: FieldDescriptor
    value: Any


def set_fields(message: Message, path: str = "", plain_path: str = "") -> Iterator[SetField]:
    """Every field that is set, also within messages and lists of messages."""
    for field, value in message.ListFields():
        here, plain = f"{path}{field.name}", f"{plain_path}{field.name}"
        inner = field.message_type
        if inner is None or inner.full_name.startswith("google.protobuf."):
            yield SetField(here, plain, field, value)
        elif isinstance(value, Message):
            yield from (
                set_fields(value, f"{here}.", f"{plain}.")
                if value.ListFields()
                else [SetField(here, plain, field, value)]
            )
        else:
            for index, one in enumerate(value):
                place = f"{here}[{index}]"
                yield from (
                    set_fields(one, f"{place}.", f"{plain}.")
                    if one.ListFields()
                    else [SetField(place, plain, field, one)]
                )


def check_served(
    message: Message,
    path: str,
    served: Served,
    wrong: InvalidRequest | None = None,
    also_unserved: Sequence[Violation] = (),
) -> None:
    """Raise the violations in `wrong`, and those for unserved fields, in one error.

    `path`: path of the message in the request. `also_unserved`: violations that the table `served` cannot express.
    A violation in `wrong` decides the reason before a field that is only not served.
    """
    unserved = list(also_unserved)
    for field in set_fields(message):
        if not _is_served(field, served):
            allowed = ", ".join(served.get(field.plain_path, ()))
            text = f"{_TEXT}; here: {allowed}" if allowed else _TEXT
            unserved.append(Violation(field=f"{path}.{field.path}", message=text, allowed=allowed))
    if wrong is not None:
        raise InvalidRequest([*unserved, *wrong.violations], wrong.reason)
    if unserved:
        raise NotServed(unserved)


def _is_served(field: SetField, served: Served) -> bool:
    if field.descriptor.message_type is not None and field.plain_path not in served:
        # An empty message with a served field in it asks for nothing.
        return any(name.startswith(f"{field.plain_path}.") for name in served)
    values = served.get(field.plain_path)
    enum = field.descriptor.enum_type
    if values and enum is not None:
        number: int = field.value
        return enum.values_by_number[number].name in values
    return values is not None
