"""The path language of WorkflowBinding, over descriptors: what a path means, and what fits where.

A reference for the rules that `workflow.proto` writes down. It moves into the server with the issue that runs workflows.
"""

import re
from dataclasses import dataclass
from typing import Any

from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message

from deviceops.processing.v1 import job_pb2

MAX_PATH = 255
FIELD = re.compile(r"([a-z][a-z0-9_]*)(?:\[(0|[1-9][0-9]{0,3}|\*)\])?")
RESULTS = {
    "generation": "generation_result",
    "reproduction": "reproduction_report",
    "postprocessing": "postprocessing_result",
    "model_load": "loaded_model",
    "model_scan": "model_scan_report",
    "model_validation": "model_validation_report",
    "model_conversion": "model_conversion_report",
    "model_benchmark": "model_benchmark_report",
    "device_benchmark": "device_benchmark_report",
    "device_reset": "device_reset_report",
    "blob_transfer": "blob_transfer_report",
}
"""The field of Job's result that each kind of work fills."""
KINDS = {
    FieldDescriptor.TYPE_STRING: "text",
    FieldDescriptor.TYPE_INT32: "integer",
    FieldDescriptor.TYPE_INT64: "integer",
    FieldDescriptor.TYPE_DOUBLE: "number",
    FieldDescriptor.TYPE_BOOL: "flag",
}
IMAGE_INPUT = "deviceops.common.v1.ImageInput"
IMAGE_FILE = "deviceops.common.v1.ImageFile"
UNBINDABLE = {"bytes"} | {f"google.protobuf.{name}" for name in ("Duration", "Timestamp", "FieldMask")}
TAKES = {"number": {"number", "integer"}, IMAGE_INPUT: {IMAGE_INPUT, IMAGE_FILE, "image"}}
"""Kinds that a field takes beside its own."""


class PathError(ValueError):
    """A path or binding that breaks a rule; the text says which."""


@dataclass(frozen=True)
class Segment:
    """One field of a path."""

    name: str
    """The field's name."""
    index: int | None = None
    """The entry, for `[0]`."""
    every: bool = False
    """Whether `[*]` stands behind the name."""


@dataclass(frozen=True)
class Value:
    """What a path or a parameter stands for."""

    kind: str
    """`text`, `integer`, `number`, `flag`, `image`, or the full name of an enum or message."""
    is_list: bool
    """Whether it is a list, or one value for each `[*]`."""
    is_enum: bool = False
    """Whether the kind is an enum, which takes text too."""


def parse(path: str) -> tuple[Segment, ...]:
    """The fields of a path. Raises PathError if the grammar does not have it."""
    if len(path) > MAX_PATH:
        raise PathError(f"{len(path)} characters; at most {MAX_PATH}")
    segments: list[Segment] = []
    for text in path.split("."):
        match = FIELD.fullmatch(text)
        if not match:
            raise PathError(f"`{text}` is no field; write `name`, `name[0]` or `name[*]`")
        mark = match[2]
        segments.append(Segment(match[1], int(mark) if mark and mark != "*" else None, mark == "*"))
    return tuple(segments)


def field_of(owner: Descriptor, segment: Segment) -> FieldDescriptor:
    field = owner.fields_by_name.get(segment.name)
    if field is None:
        raise PathError(f"{owner.name} has no field `{segment.name}`")
    if (segment.every or segment.index is not None) and not field.is_repeated:
        raise PathError(f"`{segment.name}` is no list")
    return field


def kind_of(field: FieldDescriptor) -> str:
    """The kind of a field's value, or of each entry of a list."""
    if field.message_type is not None:
        return field.message_type.full_name
    if field.enum_type is not None:
        return field.enum_type.full_name
    return KINDS.get(field.type, "bytes")


def resolve(root: Descriptor, segments: tuple[Segment, ...]) -> Value:
    """What a path means below a message. Raises PathError where a field is not there or a list is passed without a mark."""
    owner, every, field, last = root, False, None, segments[-1]
    for place, segment in enumerate(segments):
        if owner is None:
            raise PathError(f"`{segments[place - 1].name}` has no fields")
        field = field_of(owner, segment)
        if field.is_repeated and segment is not last and not segment.every and segment.index is None:
            raise PathError(f"`{segment.name}` is a list; write `{segment.name}[0]` or `{segment.name}[*]`")
        every, owner = every or segment.every, field.message_type
    assert field is not None
    kind = kind_of(field)
    if kind in UNBINDABLE:
        raise PathError(f"`{last.name}` is of the kind {kind}, which cannot be bound")
    whole = field.is_repeated and not last.every and last.index is None
    return Value(kind, every or whole, field.enum_type is not None)


def source_of(action: Any, path: str) -> Value:
    """What a step's result has at a path; a batch gives the results of its items, as a list."""
    arm = work_of(action)
    result = job_pb2.Job.DESCRIPTOR.fields_by_name[RESULTS[arm]].message_type
    assert result is not None
    value = resolve(result, parse(path))
    return Value(value.kind, value.is_list or action.WhichOneof("action") == "batch", value.is_enum)


def work_of(step: Any) -> str:
    """The kind of work that a step's template has."""
    if step.WhichOneof("action") == "work":
        arm = step.work.WhichOneof("work")
    else:
        specs = [step.batch.template, *(item.work for item in step.batch.items)]
        arm = next((found for spec in specs if (found := spec.WhichOneof("work"))), None)
    if arm is None:
        raise PathError("the step has no work")
    return arm


def target_of(step: Any, path: str) -> Value:
    """What a step's target takes. Raises PathError if it leads elsewhere than its template does."""
    segments = parse(path)
    action = step.WhichOneof("action")
    if segments[0].name not in {action, "devices"}:
        raise PathError(f"`{segments[0].name}` is no target; begin with `{action}` or `devices`")
    if sum(segment.every for segment in segments) > 1:
        raise PathError("a target has at most one `[*]`")
    value = resolve(step.DESCRIPTOR, segments)
    check_template(step, segments)
    every = any(segment.every for segment in segments)
    return Value(value.kind, value.is_list and not every, value.is_enum)


def check_template(step: Any, segments: tuple[Segment, ...]) -> None:
    """Kinds of work are the template's, `[2]` is an entry of it, and behind `[*]` it has one entry at most."""
    here: Message | None = step
    for segment in segments:
        if here is not None and here.DESCRIPTOR.name == "WorkSpec" and segment.name != work_of(step):
            raise PathError(f"the step's work is `{work_of(step)}`, not `{segment.name}`")
        entries: Any = getattr(here, segment.name) if here is not None else ()
        if segment.index is not None and segment.index >= len(entries):
            raise PathError(f"the template has no `{segment.name}[{segment.index}]`")
        if segment.every and len(entries) > 1:
            raise PathError(f"the template has {len(entries)} `{segment.name}`; at most one is the pattern for `[*]`")
        if segment.every or segment.index is not None:
            here = entries[segment.index or 0] if len(entries) else None
        else:
            here = entries if isinstance(entries, Message) else None


def fits(source: Value, target: Value) -> bool:
    takes = TAKES.get(target.kind, {target.kind}) | ({"text"} if target.is_enum else set())
    return source.kind in takes
