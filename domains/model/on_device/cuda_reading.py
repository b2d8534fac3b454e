"""Reads weights onto a CUDA device: threads register pieces of the mapped file ahead, copies follow.

Where the driver refuses to register a piece (old kernels, network disks, a file that was cut off), the thread reads it with
`preadv` into a pinned buffer of a ring, and it is copied from there.
"""

from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass
from functools import cache
from typing import Protocol

import torch
from torch import Tensor

from domains.model.on_device.file_map import PIECE, FileMap
from domains.model.on_device.flat import Flat, Slot, in_file_order
from domains.model.on_device.host_tier import HostTier
from domains.model.on_device.reading import Read, Ready
from domains.model.weight_file import WeightFile

_THREADS = 4
AHEAD = 6
"""Pieces that are read before they are copied."""
_WAIT_S = 0.02
"""A wait for a disk ends after this, so that new orders are read."""


class Copies(Protocol):
    """A queue of copies to the device."""

    def begin_thread(self) -> None:
        """Called first in each thread that registers memory."""
        ...

    def copying(self) -> AbstractContextManager[object]:
        """Within it, copies and conversions go into the queue."""
        ...

    def fence(self) -> Ready:
        """Passes when everything enqueued so far has been copied."""
        ...

    def settle(self) -> None:
        """Wait for everything that was enqueued."""
        ...


class CudaCopies:
    """See `Copies`. Begins after the work that the device's other queue has now, which may still use the memory."""

    def __init__(self, place: torch.device) -> None:
        self._place = place
        self._stream = _stream(place)
        self._stream.wait_stream(torch.cuda.current_stream(place))

    def begin_thread(self) -> None:
        # A thread begins with the first device, and would make a context there.
        if ":" in str(self._place):
            torch.cuda.set_device(self._place)

    def copying(self) -> AbstractContextManager[object]:
        return torch.cuda.stream(self._stream)

    def fence(self) -> Ready:
        event = torch.cuda.Event()
        event.record(self._stream)
        return _Event(event)

    def settle(self) -> None:
        self._stream.synchronize()


@cache
def _stream(place: torch.device) -> torch.cuda.Stream:
    """One for all loads: memory that one has freed can be used by the next without a wait."""
    return torch.cuda.Stream(place)


@dataclass(frozen=True)
class _Event:
    """See `Ready`."""

    event: torch.cuda.Event

    def passed(self) -> bool:
        return self.event.query()

    def wait(self) -> None:
        self.event.synchronize()


@dataclass(frozen=True)
class _Fetching:
    """See `Ready`: a thread reads the piece."""

    future: "Future[Tensor]"

    def passed(self) -> bool:
        return self.future.done()

    def wait(self) -> None:
        wait([self.future], _WAIT_S)


@dataclass(frozen=True)
class _Part:
    """A part of a tensor that lies in one piece of its file."""

    slot: Slot
    begin: int
    """Offset within the tensor."""
    end: int


@dataclass(frozen=True)
class _Piece:
    """A piece of a file, and what of it is wanted."""

    file: WeightFile
    number: int
    parts: Sequence[_Part]

    @property
    def begin(self) -> int:
        """Offset within the file."""
        return self.number * PIECE

    @property
    def end(self) -> int:
        """End of the last part."""
        return max(self.file.place_of(part.slot.entry) + part.end for part in self.parts)


def read_to_cuda(slots: Sequence[Slot], flat: Flat, copies: Copies, tier: HostTier) -> Iterator[Read]:
    """Read slots to the device. `tier` lends the maps. Raises as `WeightFile.read_at`."""
    pieces = _pieces(slots)
    ring = _Ring()
    maps: dict[WeightFile, FileMap] = {}
    fetched: deque[Future[Tensor]] = deque()
    threads = ThreadPoolExecutor(_THREADS, thread_name_prefix="load", initializer=copies.begin_thread)
    try:
        for piece in pieces:
            if piece.file not in maps:
                maps[piece.file] = tier.borrow(piece.file)
        waiting = iter(enumerate(pieces))
        for number, piece in enumerate(pieces):
            while len(fetched) < AHEAD and (following := next(waiting, None)) is not None:
                fetched.append(threads.submit(ring.fetch, *following, maps[following[1].file]))
            while not fetched[0].done():
                yield Read(0, _Fetching(fetched[0]))
            source = fetched.popleft().result()
            with copies.copying():
                _copy(piece, source, flat)
            ring.copied(number, copies.fence())
            yield Read(sum(part.end - part.begin for part in piece.parts))
        yield Read(0, copies.fence())
    finally:
        threads.shutdown(wait=True, cancel_futures=True)
        with ExitStack() as closing:
            for file in maps:
                closing.callback(tier.give_back, file)
            copies.settle()


def _copy(piece: _Piece, source: Tensor, flat: Flat) -> None:
    """Enqueue the copies of a piece. Neighbours that stay neighbours are one copy: each call costs 30 µs."""
    begin = end = offset = 0
    for part in piece.parts:
        at = piece.file.place_of(part.slot.entry) - piece.begin
        place = flat.offset_of(part.slot)
        if place is None:
            flat.room(part.slot, part.begin, part.end).copy_(source[at + part.begin : at + part.end], non_blocking=True)
            flat.placed(part.slot, part.end)
        elif at + part.begin == end and place + part.begin == offset + end - begin:
            end = at + part.end
        else:
            _copy_run(source, begin, end, flat, offset)
            begin, end, offset = at + part.begin, at + part.end, place + part.begin
    _copy_run(source, begin, end, flat, offset)


def _copy_run(source: Tensor, begin: int, end: int, flat: Flat, offset: int) -> None:
    if end > begin:
        flat.bytes[offset : offset + end - begin].copy_(source[begin:end], non_blocking=True)


class _Ring:
    """Pinned buffers for the pieces that cannot be registered."""

    def __init__(self) -> None:
        self._buffers: dict[int, Tensor] = {}
        self._copied: dict[int, Ready] = {}
        self._refused = False

    def fetch(self, number: int, piece: _Piece, mapped: FileMap) -> Tensor:
        """The bytes of a piece in memory that the device can read. Runs in a thread. Raises MODEL_CORRUPT."""
        if not self._refused and mapped.register(piece.number):
            return mapped.piece(piece.number)
        self._refused = True
        place = number % (AHEAD + 1)
        if place in self._copied:
            self._copied[place].wait()
        if place not in self._buffers:
            self._buffers[place] = torch.empty(PIECE, dtype=torch.uint8, pin_memory=torch.cuda.is_available())
        buffer = self._buffers[place]
        piece.file.read_at(piece.begin, buffer.numpy().data[: piece.end - piece.begin])
        return buffer

    def copied(self, number: int, fence: Ready) -> None:
        """Note when the copy of a piece is over, so that its buffer can be used again."""
        self._copied[number % (AHEAD + 1)] = fence


def _pieces(slots: Sequence[Slot]) -> list[_Piece]:
    """The pieces of the slots' files, in the order of reading."""
    parts: dict[tuple[WeightFile, int], list[_Part]] = {}
    for slot in in_file_order(slots):
        at, begin = slot.file.place_of(slot.entry), 0
        while begin < slot.stored_bytes:
            number = (at + begin) // PIECE
            end = min(slot.stored_bytes, (number + 1) * PIECE - at)
            parts.setdefault((slot.file, number), []).append(_Part(slot, begin, end))
            begin = end
    return [_Piece(file, number, some) for (file, number), some in parts.items()]
