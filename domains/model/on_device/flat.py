"""One allocation for all tensors of a component, and where each of them lies in it."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, NamedTuple, TypeVar, cast

import torch
from torch import Tensor, nn

from domains.model.on_device.quantized_layers import SCALE, put_codes
from domains.model.safetensors_header import TensorEntry
from domains.model.weight_file import WeightFile
from domains.model.weight_quantization import INT8, SCALE_BYTES

_ALIGNMENT = 64
"""Alignment in bytes: vector instructions and the kernels of GPU libraries read at most this much at once."""
_CONVERTED_ANYWHERE = (torch.float32, torch.float16, torch.bfloat16)
"""Floats that every device converts to each other; the others become float32 first."""
_JOINED = (".to_k.weight", ".to_v.weight")
"""Tensors that the engine reads as one with those before them: without a gap, it needs no copy of them."""
_JOINED_LATER = ("time_emb_proj.weight", "time_emb_proj.bias")
"""Tensors that the engine joins to one: each gets memory of its own, which the join gives back."""

Made = TypeVar("Made")


@dataclass(frozen=True, eq=False)
class Slot:
    """A tensor of a module: where its bytes are in a file, and what they become."""

    name: str
    """Its name in the module."""
    file: WeightFile
    entry: TensorEntry
    stored: torch.dtype
    dtype: torch.dtype
    """Dtype on the device."""
    shape: torch.Size
    pieces: Sequence[Tensor] = ()
    """Views on `meta` of the stored elements that make the tensor, one below the other. Empty: it is stored as it is."""
    layout: torch.memory_format = torch.channels_last
    """See `picture_layout`; matters where it has four dimensions."""
    quantization: str = ""
    """How its values become codes (see `quantized_layers`). Empty: they do not."""

    @property
    def stored_bytes(self) -> int:
        """Its bytes in the file."""
        return self.entry.end - self.entry.begin

    @property
    def value_bytes(self) -> int:
        """Bytes of its values on the device: of its codes, if it is quantized."""
        return self.shape.numel() * self.dtype.itemsize

    @property
    def scale_bytes(self) -> int:
        """Bytes of the scales of its codes."""
        return self.shape[0] * SCALE_BYTES if self.scaled else 0

    @property
    def placed_bytes(self) -> int:
        """Its bytes on the device."""
        return self.value_bytes + self.scale_bytes

    @property
    def quantized(self) -> bool:
        """Whether the device holds codes."""
        return self.quantization != ""

    @property
    def scaled(self) -> bool:
        """Whether the codes have a scale for each output channel."""
        return self.quantization == INT8

    @property
    def scale_name(self) -> str:
        """The name of the scales in the module."""
        return f"{self.name}{SCALE}"

    @property
    def channels_last(self) -> bool:
        """Whether its dimension of channels lies last, as its convolution computes fastest on the device."""
        return len(self.shape) == 4 and self.layout is torch.channels_last

    @property
    def direct(self) -> bool:
        """Whether the device holds the very bytes of the file: same dtype, and same order of the elements."""
        reordered = self.channels_last and self.shape[1] > 1 and self.shape[2] * self.shape[3] > 1
        return self.stored is self.dtype and not reordered and not self.pieces


class Slots(tuple[Slot, ...]):
    """The slots of a component. Keeps what was computed from them, so that a model that comes back is not planned again."""

    def __init__(self, iterable: Iterable[Slot] = (), /) -> None:
        del iterable  # which tuple's own constructor has taken
        self._made: dict[Callable[[Slots], Any], Any] = {}
        self._owners: Mapping[str, nn.Module] = {}

    def once(self, make: "Callable[[Slots], Made]") -> Made:
        """What a function makes of the slots alone, from its first call. To be read only."""
        if make not in self._made:
            self._made[make] = make(self)
        return cast(Made, self._made[make])

    def owners_in(self, module: nn.Module) -> Mapping[str, nn.Module]:
        """The component's module and all in it, by path."""
        if self._owners.get("") is not module:
            self._owners = dict(module.named_modules())
        return self._owners


class Room(NamedTuple):
    """Memory for a `Flat`, which others use before and after it."""

    bytes: Tensor
    """uint8, of at least `room_bytes`."""
    staging: Tensor
    """uint8, of at least `staging_bytes`."""


class Flat:
    """The memory of a component. Filled slot by slot; the tensors are views of it."""

    def __init__(self, slots: Slots, place: torch.device, room: Room | None = None) -> None:
        """`room` None: in new memory."""
        layout = slots.once(layout_of)
        self._offsets = layout.offsets
        self._own = {name: _empty(size, place) for name, size in layout.own.items()}
        """Memory of the slots outside of the allocation."""
        if room is None:
            room = Room(_empty(layout.size, place), _empty(slots.once(staging_bytes), place))
        self.bytes = room.bytes[: layout.size]
        self._staging = room.staging
        """The stored bytes of the one slot that is being read and must be converted."""

    def room(self, slot: Slot, begin: int, end: int) -> Tensor:
        """The memory for a part of the slot's stored bytes, uint8. Slots are read one after the other."""
        return self._memory(slot)[begin:end] if slot.direct else self._staging[begin:end]

    def placed(self, slot: Slot, end: int) -> None:
        """Note that the stored bytes up to `end` are in their room. Converts the tensor after its last byte."""
        if slot.direct or end < slot.stored_bytes:
            return
        self._convert(slot, self._staging[: slot.stored_bytes])

    def put(self, slot: Slot, stored: Tensor) -> None:
        """Place a tensor whose stored bytes lie in memory. They must be aligned for its dtype."""
        if slot.direct:
            self._memory(slot).copy_(stored)
        else:
            self._convert(slot, stored)

    def _convert(self, slot: Slot, stored: Tensor) -> None:
        staged = arranged(slot.pieces, stored.view(slot.stored)).view(slot.shape)
        if slot.quantized:
            put_codes(staged, self._value(slot), self._scales(slot) if slot.scaled else None)
            return
        if staged.is_floating_point() and slot.stored is not slot.dtype and slot.stored not in _CONVERTED_ANYWHERE:
            staged = staged.to(torch.float32)
        self._value(slot).copy_(staged)

    def tensors(self, slots: Slots) -> dict[str, Tensor]:
        """The tensors by their names in the module."""
        typed = {dtype: self.bytes.view(dtype) for dtype in {slot.dtype for slot in slots}}
        # One call for each, since a model has thousands.
        views = {
            name: typed[dtype].as_strided(shape, strides, offset)
            for name, dtype, shape, strides, offset in slots.once(_views)
        }
        scales = {slot.scale_name: self._scales(slot) for slot in slots if slot.scaled}
        return {slot.name: views[slot.name] if slot.name in views else self._value(slot) for slot in slots} | scales

    def _scales(self, slot: Slot) -> Tensor:
        offset = self._offsets[slot.scale_name]
        return self.bytes[offset : offset + slot.scale_bytes].view(torch.float32)

    def _memory(self, slot: Slot) -> Tensor:
        if slot.name in self._own:
            return self._own[slot.name]
        offset = self._offsets[slot.name]
        return self.bytes[offset : offset + slot.value_bytes]

    def _value(self, slot: Slot) -> Tensor:
        return as_tensor(slot, self._memory(slot))


class Layout(NamedTuple):
    """Where the slots of a component lie in their allocation."""

    offsets: Mapping[str, int]
    own: Mapping[str, int]
    """Sizes in bytes of the slots outside of it."""
    size: int
    """Bytes of the allocation."""


def layout_of(slots: Slots) -> Layout:
    """The layout: as `in_copy_order` says, then the scales of codes in the same order."""
    offsets, own = dict[str, int](), dict[str, int]()
    size = 0
    before: Slot | None = None
    for slot in in_copy_order(slots):
        if slot.name.endswith(_JOINED_LATER):
            own[slot.name] = slot.placed_bytes
            continue
        follows = before is not None and before.dtype is slot.dtype and slot.name.endswith(_JOINED)
        offsets[slot.name] = size if follows else _aligned(size)
        size, before = offsets[slot.name] + slot.value_bytes, slot
    size = _aligned(size)
    for slot in in_copy_order(slots):
        if slot.scaled:
            offsets[slot.scale_name] = size
            size += slot.scale_bytes
    return Layout(offsets, own, _aligned(size))


class _View(NamedTuple):
    """A tensor within the allocation; the offset counts its elements."""

    name: str
    dtype: torch.dtype
    shape: torch.Size
    strides: tuple[int, ...]
    offset: int


def _views(slots: Slots) -> Sequence[_View]:
    offsets = slots.once(layout_of).offsets
    return [
        _View(
            slot.name,
            slot.dtype,
            slot.shape,
            _strides(slot.shape, slot.layout),
            offsets[slot.name] // slot.dtype.itemsize,
        )
        for slot in slots
        if slot.name in offsets
    ]


def arranged(pieces: Sequence[Tensor], elements: Tensor) -> Tensor:
    """Stored elements in the order that their module has. `pieces`: see `Slot.pieces`."""
    if not pieces:
        return elements
    first = elements.storage_offset()
    views = [elements.as_strided(one.shape, one.stride(), first + one.storage_offset()) for one in pieces]
    return torch.cat(views) if len(views) > 1 else views[0].contiguous()


def room_bytes(slots: Sequence[Slot]) -> int:
    """Bytes of a `Flat` for these slots, none of which is joined with others of another layer."""
    return sum(_aligned(slot.value_bytes) for slot in slots) + _aligned(sum(slot.scale_bytes for slot in slots))


def staging_bytes(slots: Sequence[Slot]) -> int:
    """Bytes of the largest stored tensor that a `Flat` must convert."""
    return max((slot.stored_bytes for slot in slots if not slot.direct), default=0)


def _aligned(size: int) -> int:
    return -(-size // _ALIGNMENT) * _ALIGNMENT


def _empty(size: int, place: torch.device) -> Tensor:
    return torch.empty(size, dtype=torch.uint8, device=place)


def in_file_order(slots: Sequence[Slot]) -> list[Slot]:
    """Slots as they lie in their files, so that disks read forwards."""
    files = {file: number for number, file in enumerate(dict.fromkeys(slot.file for slot in slots))}
    return sorted(slots, key=lambda slot: (files[slot.file], slot.entry.begin))


def in_copy_order(slots: Sequence[Slot]) -> list[Slot]:
    """Slots in the order of their files, so that neighbours are copied at once; but what the engine joins stays together."""
    by_name = {slot.name: slot for slot in slots}
    order: dict[str, Slot] = {}
    for slot in in_file_order(slots):
        head, projection, tail = slot.name.rpartition(".to_")
        beside = [f"{head}.to_{letter}.weight" for letter in "qkv"] if projection and tail.endswith("weight") else []
        for name in beside if slot.name in beside else [slot.name]:
            if name in by_name:
                order.setdefault(name, by_name[name])
    return list(order.values())


@cache
def _strides(shape: torch.Size, layout: torch.memory_format) -> tuple[int, ...]:
    """Contiguous; convolutions have the device's layout."""
    order = layout if len(shape) == 4 else torch.contiguous_format
    return torch.empty(shape, device="meta", memory_format=order).stride()


def as_tensor(slot: Slot, placed: Tensor) -> Tensor:
    """A slot's bytes on the device as its tensor."""
    values = placed.view(slot.dtype)
    if not slot.channels_last:
        return values.view(slot.shape)
    count, channels, height, width = slot.shape
    return values.view(count, height, width, channels).permute(0, 3, 1, 2)
