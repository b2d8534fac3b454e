"""Checks every request: fields and enum values must be known to this server, and sizes within limits.

Unknown fields are refused, never dropped, because a new client of an old server must not get another picture than it asked
for. Only lookups ignore them (`answers_about_request`). One walk over the set fields finds all violations, in some
microseconds a message (`tests/server/test_request_check.py` holds a limit). The check comes before a method's own checks,
so every enum value that they see has a name.
"""

from collections.abc import Mapping
from enum import Enum, auto
from functools import cache
from typing import Any

import msgspec
from google.protobuf.descriptor import Descriptor, FieldDescriptor, MethodDescriptor
from google.protobuf.message import Message
from google.protobuf.unknown_fields import UnknownFieldSet

from deviceops.common.v1 import access_pb2
from deviceops.memory.v1 import blob_pb2
from domains import limits
from domains.errors import ErrorReason, InvalidRequest, ResourceExhausted, Violation

Path = tuple[Any, str, int | None] | None
"""The position of the walk: the `Path` of the parent, a field's name, its index if repeated. Text only for violations."""

_CHUNK = blob_pb2.BlobChunk.DESCRIPTOR
"""The message that is not checked: a look at its bytes would copy each chunk, and the blob store checks them."""


class _Kind(Enum):
    MESSAGE = auto()
    ENUM = auto()
    ID = auto()
    TEXT = auto()
    BYTES = auto()
    NUMBER = auto()


class _Look(msgspec.Struct, frozen=True):
    """The checks of one field."""

    name: str
    kind: _Kind
    repeated: bool
    enum_names: Mapping[int, str]
    """The values of an enum by name; empty for other fields."""


def answers_about_request(method: MethodDescriptor) -> bool:
    """Whether a dropped field would change the effect of the call or the meaning of its answer.

    True for every method whose scope is more than READ, and for methods of scope READ whose request describes work
    (PlanGeneration, EstimateModel, InspectModel …): it has a message that is neither a filter nor protobuf's own.
    """
    if method.GetOptions().Extensions[access_pb2.scope] != access_pb2.ACCESS_SCOPE_READ:
        return True
    bodies = [field.message_type for field in method.input_type.fields if field.message_type]
    return any(not body.name.endswith("Filter") and body.file.package != "google.protobuf" for body in bodies)


class RequestCheck:
    """The check of one method's requests."""

    def __init__(self, method: MethodDescriptor) -> None:
        self._strict = answers_about_request(method)
        self._carries_chunks = any(field.message_type is _CHUNK for field in method.input_type.fields)

    def __call__(self, request: Message) -> None:
        """Check a request. Raises INVALID_FIELD with all violations, or MESSAGE_TOO_LARGE with the sizes."""
        walk = _Walk(self._strict)
        walk.message(request, None)
        if walk.wrong:
            raise InvalidRequest(walk.wrong)
        if walk.inline_bytes > limits.REQUEST_INLINE_BYTES:
            text = f"the images in the request have {walk.inline_bytes} bytes; send them as blobs"
            raise too_large(text, walk.inline_bytes, limits.REQUEST_INLINE_BYTES)
        if not self._carries_chunks:
            _check_rest(request, walk.inline_bytes)


def _check_rest(request: Message, inline_bytes: int) -> None:
    rest = request.ByteSize() - inline_bytes
    if rest > limits.SPEC_BYTES:
        text = f"the request without its images has {rest} bytes; ask for less at once"
        raise too_large(text, rest, limits.SPEC_BYTES)


def too_large(text: str, size_bytes: int, limit: int, **facts: str) -> ResourceExhausted:
    """The error for a size above `limit`."""
    message = f"{text}; at most {limit} bytes"
    figures = {"size_bytes": size_bytes, "limit_bytes": limit, **facts}
    return ResourceExhausted(message, ErrorReason.MESSAGE_TOO_LARGE, retry_after_s=None, **figures)


class _Walk:
    def __init__(self, strict: bool) -> None:
        self.wrong: list[Violation] = []
        self.inline_bytes = 0
        self._strict = strict

    def message(self, message: Message, path: Path) -> None:
        """Check every field that is set in a message."""
        if self._strict and len(unknown := UnknownFieldSet(message)):
            self._refuse_unknown(unknown, path)
        if (looks := _looks_of(message.DESCRIPTOR)) is None:
            return
        for field, value in message.ListFields():
            look = looks.get(field.number)
            if look is None:
                continue
            here = (path, look.name, None)
            if not look.repeated:
                self._value(look, value, here)
            elif len(value) > limits.LIST_ENTRIES:
                self._refuse(
                    here,
                    f"has {len(value)} entries; at most {limits.LIST_ENTRIES}",
                    f"0..{limits.LIST_ENTRIES} entries",
                )
            elif look.kind is not _Kind.NUMBER:
                # A violation of a number or a text names the value; one of a message names the index.
                indexed = look.kind is _Kind.MESSAGE
                for index, entry in enumerate(value):
                    self._value(look, entry, (path, look.name, index) if indexed else here)

    def _value(self, look: _Look, value: Any, path: Path) -> None:
        match look.kind:
            case _Kind.MESSAGE:
                self.message(value, path)
            case _Kind.ENUM if value not in look.enum_names:
                self._refuse(path, f"this server knows no value {value}", ", ".join(look.enum_names.values()))
            case _Kind.ID:
                self._text(value, limits.ID_BYTES, path)
            case _Kind.TEXT:
                self._text(value, limits.TEXT_BYTES, path)
            case _Kind.BYTES:
                self._bytes(len(value), path)
            case _:
                pass

    def _text(self, value: str, limit: int, path: Path) -> None:
        # A character has at most 4 bytes, so most texts need no encoding.
        if len(value) * 4 > limit and (size := len(value.encode())) > limit:
            self._refuse(path, f"has {size} bytes; at most {limit}", f"0..{limit} bytes")

    def _bytes(self, size: int, path: Path) -> None:
        if size > limits.INLINE_BYTES:
            field = _text_of(path)
            text = f"{field} has {size} bytes; send it as a blob"
            raise too_large(text, size, limits.INLINE_BYTES, field=field)
        self.inline_bytes += size

    def _refuse_unknown(self, unknown: UnknownFieldSet, path: Path) -> None:
        numbers = {unknown[index].field_number for index in range(min(len(unknown), limits.LIST_ENTRIES))}
        for number in sorted(numbers):
            self._refuse((path, f"#{number}", None), "this server does not know the field; leave it empty", "")

    def _refuse(self, path: Path, text: str, allowed: str) -> None:
        if len(self.wrong) < limits.VIOLATIONS:
            self.wrong.append(Violation(field=_text_of(path), message=text, allowed=allowed))


def _text_of(path: Path) -> str:
    """The path as text: `generation.loras[3].#2047`."""
    parts: list[str] = []
    while path is not None:
        path, name, index = path
        parts.append(name if index is None else f"{name}[{index}]")
    return ".".join(reversed(parts))


@cache
def _looks_of(message: Descriptor) -> Mapping[int, _Look] | None:
    """By number, the fields of a message that need a check. None: only unknown fields can be wrong."""
    if message is _CHUNK:
        return None
    looks = {field.number: _look_of(field) for field in message.fields}
    return {number: look for number, look in looks.items() if look.repeated or look.kind is not _Kind.NUMBER}


def _look_of(field: FieldDescriptor) -> _Look:
    names: Mapping[int, str] = {}
    kind = _KINDS.get(field.type, _Kind.NUMBER)
    if kind is _Kind.TEXT and is_id(field.name):
        kind = _Kind.ID
    if field.enum_type is not None:
        names = {number: value.name for number, value in field.enum_type.values_by_number.items()}
    return _Look(field.name, kind, field.is_repeated, names)


_KINDS = {
    FieldDescriptor.TYPE_MESSAGE: _Kind.MESSAGE,
    FieldDescriptor.TYPE_ENUM: _Kind.ENUM,
    FieldDescriptor.TYPE_STRING: _Kind.TEXT,
    FieldDescriptor.TYPE_BYTES: _Kind.BYTES,
}


def is_id(name: str) -> bool:
    """Whether a field of this name holds ids, etags or page tokens."""
    return name in ("id", "etag", "page_token", "known_etag") or name.endswith(("_id", "_ids"))
