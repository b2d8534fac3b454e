"""Layers of a component that pass through two places on the device, one after the other, while the component computes.

Each layer has its tensors in one of the places for good; what changes is the bytes there. A hook before each layer waits for
the layer's bytes and begins to copy those of the next layer into the other place. On CUDA the copies come from registered
maps, on a stream of their own, and only the device waits: nothing in a step synchronises. Elsewhere bytes are read at once.
"""

from collections.abc import Callable, Generator, Sequence
from contextlib import ExitStack
from functools import partial
from typing import Any, Protocol

import torch
from torch import nn

from domains.model.layers import module_of
from domains.model.on_device.cuda_reading import Copies, CudaCopies, largest_piece, read_to_cuda
from domains.model.on_device.file_map import FileMap
from domains.model.on_device.flat import Flat, Room, Slots, room_bytes, staging_bytes
from domains.model.on_device.host_tier import HostTier
from domains.model.on_device.reading import Read, followed, read_plainly
from domains.model.on_device.weights import assign
from domains.model.weight_file import WeightFile

_PLACES = 2


class LayerStream:
    """The streamed layers of one component. Used from the thread that ticks."""

    def __init__(
        self,
        module: nn.Module,
        layers: Sequence[Slots],
        place: torch.device,
        tier: HostTier | None,
        copies: Copies | None = None,
        component: str = "",
        keep_on: Callable[[], None] = lambda: None,
    ) -> None:
        """`layers`: what fills each layer, in the order in which they compute; an even number. Gives their tensors memory,
        without values. `component`: its id; empty: a denoiser. `copies` None: CUDA's on CUDA; elsewhere bytes are read at
        once. `keep_on`: see `followed`. Raises torch's errors of its allocator."""
        self._slots = layers
        self._keep_on = keep_on
        self._paths = [module_of(slots[0].name, component) for slots in layers]
        if copies is None and place.type == "cuda":
            copies = CudaCopies(place, max(map(largest_piece, layers)))
        self._mover: _Mover = _Plain() if copies is None else _Enqueued(copies, tier or HostTier(lambda: 0))
        rooms = [_room(layers[first::_PLACES], place) for first in range(_PLACES)]
        owners = layers[0].owners_in(module)
        self._flats: list[Flat] = []
        self._here: list[int | None] = [None] * _PLACES
        """The layer whose bytes are in each place, or on their way there."""
        self._hooks: list[Any] = []
        for number, slots in enumerate(layers):
            flat = Flat(slots, place, rooms[number % _PLACES])
            self._flats.append(flat)
            for name, value in flat.tensors(slots).items():
                assign(owners, name, value)
            hook = partial(self._before, number)
            self._hooks.append(owners[self._paths[number]].register_forward_pre_hook(hook))

    def visits(self) -> Generator[Read]:
        """Bring each layer once, which proves that its file can be read. Yields after each piece. Raises as `bring`."""
        for number in range(len(self._slots)):
            yield from self._fetch(number)

    def bring(self, path: str) -> None:
        """Have the weights of a submodule (by its path) in their place, until another layer computes.

        Raises ILLEGAL_STATE (a file that has changed), MODEL_CORRUPT. Does nothing for a module outside of the layers.
        """
        for number, layer in enumerate(self._paths):
            if f"{path}.".startswith(f"{layer}."):
                self._have(number)

    def close(self) -> None:
        """Wait for the copies, and give the places back."""
        for hook in self._hooks:
            hook.remove()
        self._hooks = []
        self._mover.close()
        self._flats = []

    def _before(self, number: int, module: nn.Module, arguments: Any) -> None:
        """A forward hook of torch's."""
        self._have(number)
        following = (number + 1) % len(self._slots)
        if self._here[following % _PLACES] != following:
            self._fetch_all(following)

    def _have(self, number: int) -> None:
        if self._here[number % _PLACES] != number:
            self._fetch_all(number)
        self._mover.hold_computing()

    def _fetch_all(self, number: int) -> None:
        # Only a piece that the driver refuses to register has to be waited for: a thread reads it.
        followed(self._fetch(number), self._keep_on)

    def _fetch(self, number: int) -> Generator[Read]:
        """Bring a layer's bytes into its place. What computed with the bytes there before is enqueued already."""
        place, slots = number % _PLACES, self._slots[number]
        self._here[place] = None
        for file in dict.fromkeys(slot.file for slot in slots):
            file.check_unchanged()
        with torch.no_grad():
            yield from self._mover.move(slots, self._flats[number])
        self._here[place] = number


class _Mover(Protocol):
    """Brings the bytes of slots into their memory."""

    def move(self, slots: Slots, flat: Flat) -> Generator[Read]: ...

    def hold_computing(self) -> None: ...

    def close(self) -> None: ...


class _Plain:
    """Reads them at once, with the thread that computes."""

    def move(self, slots: Slots, flat: Flat) -> Generator[Read]:
        if flat.bytes.device.type == "cpu":
            yield from read_plainly(slots, flat)
            return
        host = Flat(slots, torch.device("cpu"))
        yield from read_plainly(slots, host)
        flat.bytes.copy_(host.bytes)

    def hold_computing(self) -> None:
        """The bytes are there."""

    def close(self) -> None:
        """Nothing is under way."""


class _Enqueued:
    """Enqueues copies from registered maps, which stay borrowed until the end."""

    def __init__(self, copies: Copies, tier: HostTier) -> None:
        self._copies = copies
        self._maps = _Held(tier)

    def move(self, slots: Slots, flat: Flat) -> Generator[Read]:
        # What this stack would do at the end of a load, `close` does at the end of the stream.
        yield from read_to_cuda(slots, flat, self._copies, self._maps, ExitStack(), iter(()))

    def hold_computing(self) -> None:
        self._copies.hold_computing()

    def close(self) -> None:
        self._copies.settle()
        self._maps.give_all_back()


class _Held:
    """Borrows each file's map once. Implements `Maps`."""

    def __init__(self, tier: HostTier) -> None:
        self._tier = tier
        self._maps: dict[WeightFile, FileMap] = {}

    def borrow(self, file: WeightFile) -> FileMap:
        if file not in self._maps:
            self._maps[file] = self._tier.borrow(file)
        return self._maps[file]

    def give_back(self, file: WeightFile) -> None:
        """The map stays borrowed."""

    def give_all_back(self) -> None:
        for file in self._maps:
            self._tier.give_back(file)
        self._maps.clear()


def _room(layers: Sequence[Slots], place: torch.device) -> Room:
    """A place for each of the layers in turn."""
    sizes = max(map(room_bytes, layers)), max(map(staging_bytes, layers))
    bytes_, staging = (torch.empty(size, dtype=torch.uint8, device=place) for size in sizes)
    return Room(bytes_, staging)
