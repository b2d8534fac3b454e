"""Reads the stored bytes of slots into their memory, piece by piece: the plain way, which every device has."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from torch import Tensor

from domains.model.on_device.file_map import resident
from domains.model.on_device.flat import Flat, Slot, in_file_order
from domains.model.weight_file import WeightFile

_SCRATCH = 4 * 1024 * 1024
PIECE = 16 * 1024 * 1024
"""Most bytes that are read without a break: a few milliseconds."""


class Ready(Protocol):
    """Tells when the next piece can be read."""

    def passed(self) -> bool:
        """Whether it can be read now. Never waits."""
        ...

    def wait(self) -> None:
        """Wait until then, or at least for a while."""
        ...


class Now:
    """See `Ready`: the next piece can be read at once."""

    def passed(self) -> bool:
        """Always True."""
        return True

    def wait(self) -> None:
        """Return at once."""


NOW = Now()


@dataclass(frozen=True)
class Read:
    """A piece is in its memory, or on its way there."""

    size: int
    """Bytes in the file."""
    ready: Ready = NOW
    """When the next piece can be read."""


def followed(reads: Iterable[Read], keep_on: Callable[[], None]) -> None:
    """Read all pieces without a break. `keep_on` is called after each piece and while one is waited for; what it raises ends
    the reading."""
    for read in reads:
        keep_on()
        while not read.ready.passed():
            read.ready.wait()
            keep_on()


def of_pages(slots: Sequence[Slot], pages: Mapping[WeightFile, Tensor | None]) -> dict[str, Tensor]:
    """The stored bytes of the slots whose file is mapped, by the slots' names."""
    found: dict[str, Tensor] = {}
    for slot in slots:
        at, mapped = slot.file.place_of(slot.entry), pages.get(slot.file)
        if mapped is not None and at % slot.stored.itemsize == 0:
            found[slot.name] = mapped[at : at + slot.stored_bytes]
    return found


def read_pages(slots: Sequence[Slot], bytes_of: Mapping[str, Tensor], flat: Flat) -> Iterator[Read]:
    """Bring mapped slots into RAM, so that a disk error is raised here and not during computation.

    Slots whose form on the device differs from that in the file are converted. Raises as `WeightFile.read_at`.
    """
    scratch = memoryview(bytearray(_SCRATCH))
    for slot in in_file_order([slot for slot in slots if slot.name in bytes_of]):
        stored = bytes_of[slot.name]
        if not resident(stored.data_ptr(), stored.numel()):
            for begin in range(0, slot.stored_bytes, _SCRATCH):
                size = min(_SCRATCH, slot.stored_bytes - begin)
                slot.file.read_at(slot.file.place_of(slot.entry) + begin, scratch[:size])
                yield Read(0)
        if not slot.direct:
            flat.put(slot, stored)
        yield Read(slot.stored_bytes)


def read_plainly(slots: Sequence[Slot], flat: Flat) -> Iterator[Read]:
    """Read from the file system into host memory. Raises as `WeightFile.read_at`.

    The files are read, not mapped: one that is cut off meanwhile is then an error, and does not kill the process.
    """
    for slot in in_file_order(slots):
        for begin in range(0, slot.stored_bytes, PIECE) or (0,):
            end = min(begin + PIECE, slot.stored_bytes)
            slot.file.read_at(slot.file.place_of(slot.entry) + begin, flat.room(slot, begin, end).numpy().data)
            flat.placed(slot, end)
            yield Read(end - begin)
