"""What an item of a batch says in the end: the template with the fields that its mask names. And items out of a blob.

A reference for the rules that `batch.proto` writes down. It moves into the server with the issue that runs batches.
"""

import io
from collections.abc import Iterator
from typing import Any

from google.protobuf import proto
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import DecodeError

from deviceops.processing.v1.batch_pb2 import Batch, BatchItem
from deviceops.processing.v1.work_pb2 import WorkSpec


class ItemError(ValueError):
    """An item that breaks a rule; the text says which."""


def work_of(batch: Batch, item: BatchItem) -> WorkSpec:
    """The work of one item. Raises ItemError for a path or a field that the contract refuses."""
    paths = list(item.override_mask.paths)
    if not batch.HasField("template"):
        if paths:
            raise ItemError("a mask needs a template")
        return item.work
    check_paths(paths, batch.template)
    check_covered(item.work, paths, "")
    work = WorkSpec()
    work.CopyFrom(batch.template)
    for path in paths:
        copy(item.work, work, path.split("."))
    return work


def check_paths(paths: list[str], template: WorkSpec) -> None:
    arms: dict[str, str] = {}
    for i, path in enumerate(paths):
        if any(f"{path}.".startswith(f"{other}.") for other in paths[:i] + paths[i + 1 :]):
            raise ItemError(f"`{path}` is named twice")
        if path.split(".")[0] != template.WhichOneof("work"):
            raise ItemError(f"`{path}` is no field of the template's `{template.WhichOneof('work')}`")
        for place, field in walk(path):
            oneof = field.containing_oneof
            if oneof and arms.setdefault(f"{place} {oneof.name}", field.name) != field.name:
                raise ItemError(f"`{path}`: one arm of `{oneof.name}` at most")


def walk(path: str) -> Iterator[tuple[str, FieldDescriptor]]:
    """The fields along a path, each with its owner's path. Raises ItemError where it leads nowhere or through a list."""
    owner: Descriptor | None = WorkSpec.DESCRIPTOR
    names = path.split(".")
    for place, name in enumerate(names):
        field = owner.fields_by_name.get(name) if owner else None
        if field is None:
            raise ItemError(f"`{path}`: no field `{name}`")
        if field.is_repeated and place + 1 < len(names):
            raise ItemError(f"`{path}`: a path ends at the list `{name}`")
        yield ".".join(names[:place]), field
        owner = field.message_type


def check_covered(message: Any, paths: list[str], prefix: str) -> None:
    """Raises ItemError for a field that is set and that no path names."""
    for field, value in message.ListFields():
        path = f"{prefix}{field.name}"
        if path in paths:
            continue
        if not any(other.startswith(f"{path}.") for other in paths):
            raise ItemError(f"`{path}` is set, and `override_mask` does not name it")
        check_covered(value, paths, f"{path}.")


def copy(source: Any, target: Any, names: list[str]) -> None:
    """Copies one field, or clears it. Messages on the way are made only for a field that is set."""
    name, *rest = names
    held = not has_presence(source, name) or source.HasField(name)
    if rest and held and is_set(getattr(source, name), rest):
        copy(getattr(source, name), getattr(target, name), rest)
    elif rest:
        if target.HasField(name):
            copy(type(getattr(source, name))(), getattr(target, name), rest)
    else:
        target.ClearField(name)
        if held:
            replace(source, target, name)


def replace(source: Any, target: Any, name: str) -> None:
    field, value = source.DESCRIPTOR.fields_by_name[name], getattr(source, name)
    if field.is_repeated:
        getattr(target, name).extend(value)
    elif field.message_type is not None:
        getattr(target, name).CopyFrom(value)
    else:
        setattr(target, name, value)


def has_presence(message: Any, name: str) -> bool:
    return message.DESCRIPTOR.fields_by_name[name].has_presence


def is_set(message: Any, names: list[str]) -> bool:
    """Whether a message sets the field at a path; a plain number or text is set unless it is empty."""
    name, *rest = names
    if has_presence(message, name):
        return message.HasField(name) and (not rest or is_set(getattr(message, name), rest))
    return bool(getattr(message, name))


def read_items(content: bytes) -> list[BatchItem]:
    """The items of a blob. Raises ItemError with the offset of the first one that cannot be read."""
    stream, items = io.BytesIO(content), list[BatchItem]()
    while (offset := stream.tell()) < len(content):
        try:
            item = proto.parse_length_prefixed(BatchItem, stream)
        except (DecodeError, ValueError) as error:
            raise ItemError(f"no BatchItem at byte {offset}") from error
        assert item is not None
        items.append(item)
    return items
