"""The contract as its rules see it: every message, enum, service and rpc, with its comment."""

from dataclasses import dataclass
from functools import cache

from google.protobuf.descriptor_pb2 import (
    DescriptorProto,
    FieldDescriptorProto,
    FileDescriptorProto,
    FileDescriptorSet,
    MethodDescriptorProto,
    ServiceDescriptorProto,
)

from protos.generate import describe


@dataclass(frozen=True)
class Field:
    """One field and where it stands."""

    file: FileDescriptorProto
    message: DescriptorProto
    field: FieldDescriptorProto

    @property
    def where(self) -> str:
        return f"{self.file.name}: {self.message.name}.{self.field.name}"


@dataclass(frozen=True)
class Rpc:
    """One rpc, where it stands, and what its comment says."""

    file: FileDescriptorProto
    service: ServiceDescriptorProto
    method: MethodDescriptorProto
    comment: str

    @property
    def where(self) -> str:
        return f"{self.file.name}: {self.service.name}.{self.method.name}"


@cache
def contract() -> FileDescriptorSet:
    return describe()


def files() -> list[FileDescriptorProto]:
    return list(contract().file)


def messages() -> list[tuple[FileDescriptorProto, DescriptorProto]]:
    return [(file, message) for file in files() for message in file.message_type]


def message(full_name: str) -> DescriptorProto:
    """The message with a full name as in a field's or method's type, `.deviceops.…`."""
    return next(message for file, message in messages() if f".{file.package}.{message.name}" == full_name)


def fields() -> list[Field]:
    return [Field(file, message, field) for file, message in messages() for field in message.field]


@cache
def _comments() -> dict[tuple[str, str, str], str]:
    found: dict[tuple[str, str, str], str] = {}
    for file in files():
        places = {tuple(place.path): place.leading_comments for place in file.source_code_info.location}
        for number, message in enumerate(file.message_type):
            # 4: messages of a file, 2: fields of a message (descriptor.proto's own field numbers).
            for i, field in enumerate(message.field):
                # A comment's lines are joined, as editors show them.
                found[file.name, message.name, field.name] = " ".join(places.get((4, number, 2, i), "").split())
    return found


def comment_of(field: Field) -> str:
    """What the contract says about a field, on one line."""
    return _comments()[field.file.name, field.message.name, field.field.name]


def input_fields() -> list[Field]:
    """Fields of all messages that a request can carry, the requests themselves included."""
    known = {f".{file.package}.{message.name}": message for file, message in messages()}
    todo = [rpc.method.input_type for rpc in rpcs()]
    reached: set[str] = set()
    while todo:
        name = todo.pop()
        if name in known and name not in reached:
            reached.add(name)
            todo += [field.type_name for field in known[name].field if field.type == FieldDescriptorProto.TYPE_MESSAGE]
    return [field for field in fields() if f".{field.file.package}.{field.message.name}" in reached]


def rpcs() -> list[Rpc]:
    found: list[Rpc] = []
    for file in files():
        comments = {tuple(place.path): place.leading_comments for place in file.source_code_info.location}
        for number, service in enumerate(file.service):
            # 6: services of a file, 2: methods of a service (descriptor.proto's own field numbers).
            found += [Rpc(file, service, m, comments.get((6, number, 2, i), "")) for i, m in enumerate(service.method)]
    return found
