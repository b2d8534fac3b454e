"""Shortens the texts and lists of a message until it fits a limit."""

from typing import Any, TypeVar

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message

Fitting = TypeVar("Fitting", bound=Message)

_STEPS = ((500, 50), (120, 50), (60, 20), (20, 5))
"""Characters of a text and entries of a list, tried in this order."""


def fitted(message: Fitting, limit_bytes: int) -> Fitting:
    """The same message, shortened in place if it is larger than the limit."""
    for characters, entries in _STEPS:
        if message.ByteSize() <= limit_bytes:
            break
        _shorten(message, characters, entries)
    return message


def _shorten(message: Message, characters: int, entries: int) -> None:
    for field, value in message.ListFields():
        if field.is_repeated:
            del value[entries:]
        if field.type == FieldDescriptor.TYPE_STRING:
            _shorten_text(message, field, value, characters)
        elif field.type == FieldDescriptor.TYPE_MESSAGE:
            for each in value if field.is_repeated else (value,):
                _shorten(each, characters, entries)


def _shorten_text(message: Message, field: FieldDescriptor, value: Any, characters: int) -> None:
    if field.is_repeated:
        value[:] = [_cut(each, characters) for each in value]
    else:
        setattr(message, field.name, _cut(value, characters))


def _cut(text: str, characters: int) -> str:
    return text if len(text) <= characters else f"{text[: characters - 1]}…"
