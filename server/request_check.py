"""What every request keeps, whatever it asks for: fields and enum values that this server knows, and sizes within limits.

Unknown fields are refused, never dropped: a new client of an old server must not get another picture than it asked for.
Only lookups ignore them (`answers_about_request`). One walk over the set fields finds everything; its cost is some
microseconds a message (`tests/server/test_request_check.py` holds a limit). It comes before a method's own checks, which
may rely on it: every enum value that they see has a name.
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
"""Where the walk is: the `Path` before, a field's name, its index if repeated. Only a violation needs it as text."""

_CHUNK = blob_pb2.BlobChunk.DESCRIPTOR
"""Its bytes are checked by the blob store: to look at them here would copy each chunk of an upload."""


class _Kind(Enum):
    MESSAGE = auto()
    ENUM = auto()
    ID = auto()
    TEXT = auto()
    BYTES = auto()
    NUMBER = auto()


class _Look(msgspec.Struct, frozen=True):
    """What to look at in one field."""

    name: str
    kind: _Kind
    repeated: bool
    enum_names: Mapping[int, str]
    """Of an enum: its values. Else empty."""


def answers_about_request(method: MethodDescriptor) -> bool:
    """Whether a field that was dropped would change what the call does or what its answer means.

    So it is for every method whose scope is more than READ, and for those that only look yet are given a description of
    work (PlanGeneration, EstimateModel, InspectModel …): a message that is neither a filter nor one of protobuf's own.
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
        """INVALID_FIELD with every violation, or MESSAGE_TOO_LARGE with the figures."""
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
    """The error for what is larger than `limit`."""
    message = f"{text}; at most {limit} bytes"
    figures = {"size_bytes": size_bytes, "limit_bytes": limit, **facts}
    return ResourceExhausted(message, ErrorReason.MESSAGE_TOO_LARGE, retry_after_s=None, **figures)


class _Walk:
    def __init__(self, strict: bool) -> None:
        self.wrong: list[Violation] = []
        self.inline_bytes = 0
        self._strict = strict

    def message(self, message: Message, path: Path) -> None:
        """Everything that is set in it."""
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
                # Of numbers and texts the violation names the value; of messages the index.
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
        # A character has at most 4 bytes, so that most texts need not be encoded to be measured.
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
    """`generation.loras[3].#2047`."""
    parts: list[str] = []
    while path is not None:
        path, name, index = path
        parts.append(name if index is None else f"{name}[{index}]")
    return ".".join(reversed(parts))


@cache
def _looks_of(message: Descriptor) -> Mapping[int, _Look] | None:
    """By number, the fields that must be looked at. None: nothing but unknown fields."""
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
    """Whether a field of that name holds an id, an etag or a page token, or several."""
    return name in ("id", "etag", "page_token", "known_etag") or name.endswith(("_id", "_ids"))
