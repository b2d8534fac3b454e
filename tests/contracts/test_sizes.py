"""No answer is ever larger than what .NET's clients receive: the worst case of each, computed from the fields' limits."""

import re
from functools import cache

import pytest
from google.protobuf.descriptor_pb2 import DescriptorProto, FieldDescriptorProto, FileDescriptorProto

from domains import limits
from tests.contracts import bounds
from tests.contracts.contract import Field, Rpc, comment_of, files, messages, rpcs

P = FieldDescriptorProto
SCALAR_BYTES = {
    **dict.fromkeys((P.TYPE_DOUBLE, P.TYPE_FIXED64, P.TYPE_SFIXED64), 8),
    **dict.fromkeys((P.TYPE_FLOAT, P.TYPE_FIXED32, P.TYPE_SFIXED32), 4),
    **dict.fromkeys((P.TYPE_INT64, P.TYPE_INT32), 10),
    P.TYPE_BOOL: 1,
    P.TYPE_ENUM: 2,
}
"""Of an enum: numbers of the contract are below 2^14."""
GOOGLE = {".google.protobuf.Timestamp": 17, ".google.protobuf.Duration": 17, ".google.protobuf.FieldMask": 4096}
TAG_BYTES, LENGTH_BYTES = 2, 4


class NoBound(Exception):
    """A field whose size nothing limits."""


@cache
def _known() -> dict[str, tuple[FileDescriptorProto, DescriptorProto]]:
    return {f".{file.package}.{message.name}": (file, message) for file, message in messages()}


@cache
def _enum_sizes() -> dict[str, int]:
    return {f".{file.package}.{enum.name}": len(enum.value) for file in files() for enum in file.enum_type}


@cache
def message_bytes(type_name: str, without: frozenset[str] = frozenset()) -> int:
    """The largest that a message can be, its fields' tags and lengths included; `without` fields and oneofs."""
    if type_name in GOOGLE:
        return GOOGLE[type_name]
    file, message = _known()[type_name]
    if message.name in bounds.WHOLE and not without:
        return bounds.WHOLE[message.name]
    choices = dict[int, int]()
    total = 0
    for field in message.field:
        in_oneof = field.HasField("oneof_index") and not field.proto3_optional
        if field.name in without or (in_oneof and message.oneof_decl[field.oneof_index].name in without):
            continue
        size = field_bytes(Field(file, message, field))
        if in_oneof:
            # One arm of a oneof is set.
            choices[field.oneof_index] = max(choices.get(field.oneof_index, 0), size)
        else:
            total += size
    return total + sum(choices.values())


def field_bytes(field: Field) -> int:
    """The largest that a field can be: all entries of a list."""
    if _name(field) in bounds.TOTAL:
        return bounds.TOTAL[_name(field)]
    count = entries(field) if field.field.label == P.LABEL_REPEATED else 1
    if field.field.type not in (P.TYPE_MESSAGE, P.TYPE_STRING, P.TYPE_BYTES):
        # Numbers are packed behind one tag.
        return TAG_BYTES + LENGTH_BYTES + count * SCALAR_BYTES[field.field.type]
    return count * (TAG_BYTES + LENGTH_BYTES + value_bytes(field))


def value_bytes(field: Field) -> int:
    match field.field.type:
        case P.TYPE_MESSAGE:
            return message_bytes(field.field.type_name, frozenset(bounds.WITHOUT.get(_name(field), ())))
        case P.TYPE_BYTES:
            return bounds.BYTES.get(_name(field), limits.INLINE_BYTES)
        case _:
            return text_bytes(field)


def text_bytes(field: Field) -> int:
    said = None if field.field.label == P.LABEL_REPEATED else bounds.said_bytes(comment_of(field))
    return said or _by_name(bounds.TEXT_BY_NAME, field) or bounds.TEXT_BYTES


def entries(field: Field) -> int:
    """The most that a list can have. NoBound: nothing says it."""
    element = field.field.type_name.rpartition(".")[2]
    found = (
        bounds.ENTRIES_BY_FIELD.get(_name(field))
        or bounds.said_entries(comment_of(field))
        or bounds.ENTRIES_BY_TYPE.get(element)
        or _enum_sizes().get(field.field.type_name)
        or _by_name(bounds.ENTRIES_BY_NAME, field)
    )
    if not found:
        raise NoBound(
            f"{field.where}: say `at most …` in its comment and hold it, or add it to tests/contracts/bounds.py"
        )
    return found


def _by_name(table: dict[str, int], field: Field) -> int | None:
    return next((bound for pattern, bound in table.items() if re.search(pattern, field.field.name)), None)


def _name(field: Field) -> str:
    return f"{field.message.name}.{field.field.name}"


def answer_bytes(rpc: Rpc) -> int:
    """The largest answer of a method; a page of a list is cut, unless one item alone is larger.

    What a page holds beside its list says how much that is at most.
    """
    file, message = _known()[rpc.method.output_type]
    paged = any(field.name == "next_page_token" for field in message.field)
    narrowed = bounds.NARROWED.get(f"{rpc.service.name}.{rpc.method.name}", "").split()
    if not paged and not narrowed:
        return message_bytes(rpc.method.output_type)
    total = 0
    for field in message.field:
        one = Field(file, message, field)
        listed = field.label == P.LABEL_REPEATED and field.type == P.TYPE_MESSAGE
        if paged and listed and not bounds.said_entries(comment_of(one)):
            total += max(limits.PAGE_BYTES, value_bytes(one))
        else:
            total += value_bytes(one) if field.name in narrowed else field_bytes(one)
    return total


RPCS = {f"{rpc.service.name}.{rpc.method.name}": rpc for rpc in rpcs()}


@pytest.mark.parametrize("name", RPCS)
def test_the_largest_answer_fits_into_4_mib(name: str) -> None:
    size = answer_bytes(RPCS[name])
    assert size <= limits.ANSWER_BYTES, f"{size / 1024**2:.1f} MiB: {_largest(RPCS[name].method.output_type)}"


def test_capabilities_without_known_prompts_need_no_narrowing() -> None:
    """4 kinds of devices, 7 families and 5 tasks, and as many models as there may be: a client's first call just works."""
    answer = RPCS["InferenceService.GetInferenceCapabilities"].method.output_type
    file, message = _known()[".deviceops.inference.v1.GenerationModel"]
    prompts = next(field for field in message.field if field.name == "known_prompts")
    without = message_bytes(answer) - limits.CAPABLE_MODELS * field_bytes(Field(file, message, prompts))
    assert without <= limits.ANSWER_BYTES, f"{without / 1024**2:.2f} MiB"


def _largest(type_name: str) -> str:
    """Where the bytes are, down the largest fields."""
    parts = list[str]()
    while type_name in _known() and (found := _known()[type_name])[1].field and found[1].name not in bounds.WHOLE:
        field = max((Field(*found, field) for field in found[1].field), key=field_bytes)
        parts.append(f"{_name(field)} {field_bytes(field) / 1024:.0f} KiB")
        type_name = field.field.type_name
    return " > ".join(parts)


def test_every_bound_is_of_a_field_that_there_is() -> None:
    """A table that nobody keeps would hold nothing."""
    names = {f"{message.name}.{field.name}" for _, message in messages() for field in message.field}
    types = {message.name for _, message in messages()}
    assert not {*bounds.ENTRIES_BY_FIELD, *bounds.BYTES, *bounds.TOTAL} - names
    assert not {*bounds.ENTRIES_BY_TYPE, *bounds.WHOLE} - types
