"""Reads weights onto a CUDA device: threads register pieces of the mapped file ahead, copies follow.

A piece crosses the bus in one copy, into a buffer on the device, and its tensors go from there to their places: a copy for
each tensor would leave the bus idle between them, for a third of the time.

Where the driver refuses to register a piece (old kernels, network disks, a file that was cut off), the thread reads it with
`preadv` into a pinned buffer of a ring, and it is copied from there.
"""

from collections import deque
from collections.abc import Generator, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import cache
from typing import Protocol

import torch
from torch import Tensor

from domains.model.on_device.file_map import PIECE, FileMap
from domains.model.on_device.flat import Flat, Slot, Slots, in_file_order, layout_of
from domains.model.on_device.reading import Read, Ready
from domains.model.weight_file import WeightFile

AHEAD = 3
"""Pieces that are read before they are copied, each by a thread. Eight more threads that read further pieces into pinned
buffers meanwhile were tried: 33 instead of 29 GB/s from the page cache to an H200, for 256 MiB of pinned RAM a worker."""
_BUFFERS = 2
"""Pieces on the device whose tensors are not yet in their places."""
_WAIT_S = 0.02
"""Longest wait for a disk before the worker reads new orders again."""


class Copies(Protocol):
    """A queue of copies to the device."""

    def begin(self) -> None:
        """Called before the first copy into new memory, which the device's other queue may still use."""
        ...

    def begin_thread(self) -> None:
        """Called first in each thread that registers memory."""
        ...

    def bring(self, source: Tensor) -> Tensor:
        """Enqueue the copy of host bytes to the device; returns the copy, which is valid only within the next `copying`."""
        ...

    def copying(self) -> AbstractContextManager[object]:
        """Within it, copies and conversions on the device go into the queue, after what was brought."""
        ...

    def fence(self) -> Ready:
        """Returns a `Ready` that passes when everything enqueued so far has been copied."""
        ...

    def hold_computing(self) -> None:
        """Have the device's computing queue wait for everything that was enqueued. Returns at once."""
        ...

    def settle(self) -> None:
        """Wait for everything that was enqueued."""
        ...


class Maps(Protocol):
    """Lends the maps of files. `HostTier` is one."""

    def borrow(self, file: WeightFile) -> FileMap:
        """The map of a file. Give it back when all copies are over."""
        ...

    def give_back(self, file: WeightFile) -> None:
        """End a borrowing."""
        ...


class CudaCopies:
    """See `Copies`. One for all components of a load, which share its buffers."""

    def __init__(self, place: torch.device, largest_bytes: int = PIECE) -> None:
        """`largest_bytes`: most bytes that are brought at once."""
        self.place = place
        self._largest_bytes = largest_bytes
        self._bus, self._stream = _streams(place)
        self._buffers: list[_Buffer] = []
        self._brought = 0

    def begin(self) -> None:
        # Made now: memory that is taken between the pieces could be what a step beside has freed and still computes with.
        while len(self._buffers) < _BUFFERS:
            self._buffers.append(_Buffer(torch.empty(self._largest_bytes, dtype=torch.uint8, device=self.place)))
        for stream in (self._bus, self._stream):
            stream.wait_stream(torch.cuda.current_stream(self.place))

    def begin_thread(self) -> None:
        # A new thread uses device 0 by default, and would create a CUDA context there.
        if ":" in str(self.place):
            torch.cuda.set_device(self.place)

    def bring(self, source: Tensor) -> Tensor:
        self._brought += 1
        there = self._last.bytes[: len(source)]
        with torch.cuda.stream(self._bus):
            self._bus.wait_event(self._last.read)
            there.copy_(source, non_blocking=True)
        self._stream.wait_stream(self._bus)
        return there

    @contextmanager
    def copying(self) -> Generator[None]:
        with torch.cuda.stream(self._stream):
            yield
            self._last.read.record(self._stream)

    def fence(self) -> Ready:
        event = torch.cuda.Event()
        event.record(self._stream)
        return _Event(event)

    def hold_computing(self) -> None:
        torch.cuda.current_stream(self.place).wait_stream(self._stream)

    def settle(self) -> None:
        self._bus.synchronize()
        self._stream.synchronize()

    def free_buffers(self) -> None:
        """Give the memory of the buffers back, once everything was copied."""
        self._buffers.clear()
        self._brought = 0

    @property
    def _last(self) -> "_Buffer":
        """The buffer of the piece that was brought last."""
        return self._buffers[(self._brought - 1) % _BUFFERS]


@dataclass(frozen=True)
class _Buffer:
    """A place on the device for one piece."""

    bytes: Tensor
    read: torch.cuda.Event = field(default_factory=torch.cuda.Event)
    """Passes when its tensors are in their places."""


@cache
def _streams(place: torch.device) -> tuple[torch.cuda.Stream, torch.cuda.Stream]:
    """Streams for the bus and for copies on the device. All loads share them, so that one reuses what another freed."""
    return torch.cuda.Stream(place), torch.cuda.Stream(place)


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
class _Run:
    """Bytes of neighbours that stay neighbours: they go to their places in one copy."""

    begin: int
    """Offset within the bytes that were brought."""
    end: int
    offset: int
    """Offset of their place within `Flat.bytes`."""


@dataclass(frozen=True)
class _Piece:
    """A piece of a file, and what of it is wanted."""

    file: WeightFile
    number: int
    parts: Sequence[_Part]
    """Those that are converted, or have memory of their own."""
    runs: Sequence[_Run]
    """The others."""
    wanted_bytes: int
    first: int
    """Begin of the first part within the file."""
    end: int
    """End of the last part within the file."""

    @property
    def begin(self) -> int:
        """Offset within the file."""
        return self.number * PIECE


def read_to_cuda(
    slots: Slots,
    flat: Flat,
    copies: Copies,
    tier: Maps,
    ending: ExitStack,
    meanwhile: Iterator[None],
) -> Iterator[Read]:
    """Read slots to the device. `tier` lends the maps. Raises as `WeightFile.read_at`.

    The last copies may still run at its end, so that those of the next component follow without a gap: `ending`, closed by
    the caller, waits for them and gives the maps back. `meanwhile` is advanced while a piece is waited for or the bus is
    behind.
    """
    ring = _Ring()
    maps: dict[WeightFile, FileMap] = {}
    fetched: deque[Future[Tensor]] = deque()
    copies.begin()
    threads = ThreadPoolExecutor(AHEAD, thread_name_prefix="load", initializer=copies.begin_thread)
    try:
        pieces = slots.once(_pieces)
        for piece in pieces:
            if piece.file not in maps:
                maps[piece.file] = tier.borrow(piece.file)
        waiting = iter(enumerate(pieces))
        for number, piece in enumerate(pieces):
            while len(fetched) < AHEAD and (following := next(waiting, None)) is not None:
                fetched.append(_begin_to_fetch(*following, maps[following[1].file], ring, threads))
            while not fetched[0].done():
                next(meanwhile, None)
                yield Read(0, _Fetching(fetched[0]))
            source = fetched.popleft().result()
            there = copies.bring(source[piece.first - piece.begin : piece.end - piece.begin])
            with copies.copying():
                _place(piece, there, flat)
            ring.copied(number, copies.fence())
            yield Read(piece.wanted_bytes)
        for _ in meanwhile:
            yield Read(0)
    finally:
        threads.shutdown(wait=True, cancel_futures=True)
        for file in maps:
            ending.callback(tier.give_back, file)
        ending.callback(copies.settle)


def _begin_to_fetch(
    number: int, piece: _Piece, mapped: FileMap, ring: "_Ring", threads: ThreadPoolExecutor
) -> "Future[Tensor]":
    """The bytes of a piece, at once if it is registered already; else a thread fetches them."""
    if not mapped.registered(piece.number):
        return threads.submit(ring.fetch, number, piece, mapped)
    there = Future[Tensor]()
    there.set_result(mapped.piece(piece.number))
    return there


def _place(piece: _Piece, there: Tensor, flat: Flat) -> None:
    """Enqueue what brings the parts of a piece to their places."""
    for run in piece.runs:
        place = flat.bytes[run.offset : run.offset + run.end - run.begin]
        place.copy_(there[run.begin : run.end], non_blocking=True)
    for part in piece.parts:
        slot = part.slot
        at = piece.file.place_of(slot.entry) + part.begin - piece.first
        size = part.end - part.begin
        if size == slot.stored_bytes and at % slot.stored.itemsize == 0:
            flat.put(slot, there[at : at + size])
        else:
            flat.room(slot, part.begin, part.end).copy_(there[at : at + size], non_blocking=True)
            flat.placed(slot, part.end)


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


def largest_piece(slots: Slots) -> int:
    """Most bytes that are brought at once for these slots."""
    return max((piece.end - piece.first for piece in slots.once(_pieces)), default=0)


def _pieces(slots: Slots) -> Sequence[_Piece]:
    """The pieces of the slots' files, in the order of reading."""
    parts: dict[tuple[WeightFile, int], list[_Part]] = {}
    for slot in in_file_order(slots):
        at, begin = slot.file.place_of(slot.entry), 0
        while begin < slot.stored_bytes:
            number = (at + begin) // PIECE
            end = min(slot.stored_bytes, (number + 1) * PIECE - at)
            parts.setdefault((slot.file, number), []).append(_Part(slot, begin, end))
            begin = end
    offsets = slots.once(layout_of).offsets
    return [_piece(file, number, some, offsets) for (file, number), some in parts.items()]


def _piece(file: WeightFile, number: int, parts: Sequence[_Part], offsets: Mapping[str, int]) -> _Piece:
    begins = [file.place_of(part.slot.entry) + part.begin for part in parts]
    ends = [file.place_of(part.slot.entry) + part.end for part in parts]
    first = min(begins)
    direct = {part.slot.name for part in parts if part.slot.direct and part.slot.name in offsets}
    runs = list[_Run]()
    for part, at in zip(parts, begins, strict=True):
        if part.slot.name in direct:
            place = offsets[part.slot.name] + part.begin
            runs.append(_Run(at - first, at - first + part.end - part.begin, place))
    return _Piece(
        file,
        number,
        parts=[part for part in parts if part.slot.name not in direct],
        runs=_joined(runs),
        wanted_bytes=sum(part.end - part.begin for part in parts),
        first=first,
        end=max(ends),
    )


def _joined(runs: Sequence[_Run]) -> Sequence[_Run]:
    """Runs of which none continues the one before it."""
    joined = list[_Run]()
    for run in runs:
        before = joined[-1] if joined else None
        if before and run.begin == before.end and run.offset == before.offset + before.end - before.begin:
            joined[-1] = _Run(before.begin, run.end, before.offset)
        else:
            joined.append(run)
    return joined
