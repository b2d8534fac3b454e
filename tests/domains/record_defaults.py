"""What a record means that does not say a field, as lines of text: records of older versions are read with these values."""

import inspect
from collections.abc import Iterable
from types import ModuleType

import msgspec

from tests.domains.model.facts import text


def defaults_of(modules: Iterable[ModuleType]) -> str:
    """A line for each field with a default, by struct; `modules`: those that define the structs."""
    return "".join(f"{line}\n" for module in modules for line in _lines(module))


def _lines(module: ModuleType) -> Iterable[str]:
    for name, struct in vars(module).items():
        if inspect.isclass(struct) and issubclass(struct, msgspec.Struct) and struct.__module__ == module.__name__:
            said = [f"{field.name}={text(value)}" for field in _own(struct) if (value := _default(field)) is not ...]
            if said:
                yield f"{name} {' '.join(said)}"


def _own(struct: type[msgspec.Struct]) -> Iterable[msgspec.structs.FieldInfo]:
    """The fields that no parent has."""
    inherited = {name for parent in struct.__bases__ for name in getattr(parent, "__struct_fields__", ())}
    return [field for field in msgspec.structs.fields(struct) if field.name not in inherited]


def _default(field: msgspec.structs.FieldInfo) -> object:
    if field.default_factory is not msgspec.NODEFAULT:
        return field.default_factory()
    return ... if field.default is msgspec.NODEFAULT else field.default
