"""Finds a module on the device with the same bytes as a component in another file, so that both models share one copy.

The bytes are compared, not hashed: components that differ nearly always differ in their first tensor, and then nothing
more is read. Tensors count, not files: a VAE in a checkpoint equals the same VAE in another one.
"""

from collections.abc import Generator, Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import BinaryIO
from weakref import WeakKeyDictionary

from torch import nn

from domains.descriptors import read_at
from domains.errors import DeviceOpsError
from domains.model.model import Model
from domains.model.on_device.flat import Slot, Slots, in_file_order
from domains.model.regular_file import state_of
from domains.model.weight_file import WeightFile, open_judged

_CHUNK = 4 * 1024 * 1024
"""Bytes that are compared without a break: a few milliseconds."""


@dataclass(frozen=True)
class _Range:
    """The stored bytes of a tensor."""

    name: str
    path: str
    begin: int
    size: int


@dataclass(frozen=True)
class _Stored:
    """Where the bytes of a filled module came from."""

    model: Model
    states: dict[str, str]
    """States of the files when they were read, by path."""
    ranges: Mapping[str, _Range]
    """By name in the module."""


class Alike:
    """The filled modules by what they look like. Used from the thread that loads."""

    def __init__(self) -> None:
        self._looks: WeakKeyDictionary[nn.Module, tuple[Hashable, _Stored]] = WeakKeyDictionary()

    def put(self, module: nn.Module, model: Model, kind: Hashable, slots: Slots) -> None:
        """Note a filled module. `kind`: equal for modules that compute alike if their tensors are equal."""
        files = {slot.file for slot in slots}
        states = {_path(file): file.state for file in files}
        self._looks[module] = _look(kind, slots), _Stored(model, states, slots.once(_ranges))

    def find(self, kind: Hashable, slots: Slots) -> Generator[None, None, nn.Module | None]:
        """A module with the same tensors; None: there is none. Yields between pieces of the comparison."""
        look = _look(kind, slots)
        for module, (other, stored) in list(self._looks.items()):
            # One without its weights waits in a host tier.
            if other != look or any(tensor.is_meta for tensor in module.parameters()):
                continue
            if (yield from _equal(slots, stored)):
                return module
        return None


def _look(kind: Hashable, slots: Slots) -> Hashable:
    return kind, slots.once(_looks)


def _looks(slots: Slots) -> Hashable:
    return tuple(sorted(map(_look_of, slots)))


def _look_of(slot: Slot) -> tuple[object, ...]:
    return slot.name, slot.entry.dtype, str(slot.dtype), tuple(slot.shape), str(slot.layout), _pieces(slot)


def _pieces(slot: Slot) -> tuple[tuple[int, ...], ...]:
    return tuple((int(one.storage_offset()), *one.shape, *one.stride()) for one in slot.pieces)


def _ranges(slots: Slots) -> Mapping[str, _Range]:
    return {one.name: _range(one) for one in slots}


def _range(slot: Slot) -> _Range:
    return _Range(slot.name, _path(slot.file), slot.file.place_of(slot.entry), slot.stored_bytes)


def _path(file: WeightFile) -> str:
    return f"{file.component}/{file.name}" if file.component else file.name


def _equal(slots: Sequence[Slot], stored: _Stored) -> Generator[None, None, bool]:
    """Whether the bytes in the slots' files are those that were stored. A file that is gone or has changed: no."""
    opened: dict[str, BinaryIO] = {}
    try:
        for path, state in stored.states.items():
            opened[path] = open_judged(stored.model, path)
            if state_of(opened[path]) != state:
                return False
        for slot in in_file_order(slots):
            other = stored.ranges[slot.name]
            if other.size != slot.stored_bytes:
                return False
            for begin in range(0, other.size, _CHUNK):
                size = min(_CHUNK, other.size - begin)
                ours = bytearray(size)
                slot.file.read_at(slot.file.place_of(slot.entry) + begin, memoryview(ours))
                if read_at(opened[other.path].fileno(), size, other.begin + begin) != bytes(ours):
                    return False
                yield
        return True
    except (DeviceOpsError, OSError):
        return False
    finally:
        for file in opened.values():
            file.close()
