"""Every field of a Generation, from the descriptors, and messages that set one of them."""

import re
from collections.abc import Iterator
from typing import Any

from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message

from deviceops.inference.v1 import generation_pb2

F = FieldDescriptor
_INTEGERS = {F.TYPE_INT32, F.TYPE_INT64}
_FLOATS = {F.TYPE_DOUBLE, F.TYPE_FLOAT}


def leaf_paths(message: Descriptor = generation_pb2.Generation.DESCRIPTOR, prefix: str = "") -> Iterator[str]:
    """Paths of all fields that hold a value, without indexes; of a message without fields, its own."""
    for field in message.fields:
        inner = field.message_type
        if inner is None or not inner.fields or inner.full_name.startswith("google.protobuf."):
            yield f"{prefix}{field.name}"
        else:
            yield from leaf_paths(inner, f"{prefix}{field.name}.")


def field_at(path: str) -> FieldDescriptor:
    """The field's descriptor."""
    message: Any = generation_pb2.Generation.DESCRIPTOR
    *above, name = path.split(".")
    for part in above:
        message = message.fields_by_name[part].message_type
    return message.fields_by_name[name]


def put(message: Message, path: str, value: object = None) -> None:
    """Set the field at `path`; of a list, its only entry. None: some value other than the field's default."""
    name, _, rest = path.partition(".")
    field: Any = message.DESCRIPTOR.fields_by_name[name]
    if field.message_type is None:
        chosen = _some_value(field) if value is None else _read(field, value)
        if field.is_repeated:
            getattr(message, name).extend(chosen if isinstance(chosen, list) else [chosen])
        else:
            setattr(message, name, chosen)
        return
    inner = getattr(message, name)
    if field.is_repeated:
        inner = inner[0] if len(inner) else inner.add()
    if rest:
        put(inner, rest, value)
    else:
        inner.SetInParent()


def plain(path: str) -> str:
    """Without indexes."""
    return re.sub(r"\[\d+\]", "", path)


def _read(field: FieldDescriptor, value: Any) -> Any:
    """A value, or its text as the capability list has it."""
    if field.enum_type is not None and isinstance(value, str):
        return field.enum_type.values_by_name[value].number
    return value


def _some_value(field: FieldDescriptor) -> Any:
    if field.enum_type is not None:
        return field.enum_type.values[-1].number
    if field.type in _INTEGERS:
        return 1
    if field.type in _FLOATS:
        return 0.5
    return {F.TYPE_BOOL: True, F.TYPE_STRING: "x", F.TYPE_BYTES: b"x"}[field.type]
