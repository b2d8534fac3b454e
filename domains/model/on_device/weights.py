"""Fills an empty module from safetensors files."""

from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import ExitStack
from functools import partial
from typing import NamedTuple

import torch
from torch import nn

from domains.errors import DataLoss, ErrorReason, FailedPrecondition
from domains.model.on_device.cuda_reading import CudaCopies, read_to_cuda
from domains.model.on_device.derived import derived_buffers, derived_parameters, derives
from domains.model.on_device.flat import Flat, Slot, Slots, as_tensor
from domains.model.on_device.host_tier import HostTier
from domains.model.on_device.leased_map import mapped
from domains.model.on_device.quantized_layers import CODES, quantizes
from domains.model.on_device.reading import NOW, Read, Ready, of_pages, read_pages, read_plainly
from domains.model.on_device.stored_dtypes import DTYPES
from domains.model.safetensors_header import TensorEntry
from domains.model.weight_file import WeightFile

# Names that older exports use for the VAE's attention, and what diffusers calls them now.
_OLD_ATTENTION = {"query": "to_q", "key": "to_k", "value": "to_v", "proj_attn": "to_out.0"}

_HOST = torch.device("cpu")
_AT_ONCE = 128
"""Tensors that a module gets without a break: a millisecond at most."""


class Source(NamedTuple):
    """The stored bytes of a tensor."""

    file: WeightFile
    entry: TensorEntry
    pieces: Sequence[torch.Tensor] = ()
    """See `Slot.pieces`."""


Sources = Mapping[str, Source]
"""By name in the module."""
Find = Callable[[Sequence[WeightFile], Mapping[str, torch.Tensor]], Sources]
"""Takes the files and the tensors that the module wants."""


def plan(
    module: nn.Module,
    component: str,
    files: Sequence[WeightFile],
    dtype: torch.dtype,
    layout: torch.memory_format,
    find: Find | None = None,
    quantization: str = "",
) -> Slots:
    """Where every parameter and buffer of a `meta` module gets its values from.

    Floats become `dtype`, convolutions `layout`. Tensors that the module does not know are ignored.
    `find`: for files that name their tensors otherwise than the module. `quantization`: how the weights of a denoiser's
    large layers are stored in fewer bits; empty: they are not.
    Raises COMPONENT_MISSING (no file), MODEL_CORRUPT (a tensor missing
    or of another shape), MODEL_INCOMPATIBLE (a dtype that cannot be converted).
    """
    if not files:
        message = f"the model has no safetensors file for {component}; restore it and scan again"
        raise FailedPrecondition(message, ErrorReason.COMPONENT_MISSING, component=component)
    wanted = module.state_dict(keep_vars=True)
    sources = (find or named_sources)(files, wanted)
    return Slots(
        _slot(
            component,
            name,
            sources,
            like,
            dtype,
            layout,
            quantization if quantization and quantizes(module, name, like.shape) else "",
        )
        for name, like in wanted.items()
        if name in sources or find is None or not derives(name)
    )


class Filling:
    """Gives `meta` modules their values on one device, one component after the other.

    On CUDA the tensors of a module are views of memory that copies fill: they hold the values when `ended` has passed. The
    copies of one component follow those of the one before without a gap; leaving the block waits for all of them.
    """

    def __init__(self, place: torch.device, tier: HostTier | None = None) -> None:
        """`tier` lends the maps of files to CUDA devices. None: nothing is kept of them."""
        self._place = place
        self._tier = tier or HostTier(lambda: 0)
        self._copies = CudaCopies(place) if place.type == "cuda" else None
        self._ending = ExitStack()
        self._reads: Generator[Read] | None = None

    def __enter__(self) -> "Filling":
        return self

    def __exit__(self, *_: object) -> None:
        # Close the reads of a cancelled component first: it hands to `_ending` what its copies still read.
        if self._reads is not None:
            self._reads.close()
        self._ending.close()
        if self._copies is not None:
            # Who waits for the copies may refer to this object as long as the model is there.
            self._copies.free_buffers()

    def fill(self, module: nn.Module, slots: Slots) -> Generator[Read]:
        """Fill a module. Yields after each piece. Raises MODEL_CORRUPT (a broken file)."""
        of_place = self._here if self._copies is None else partial(self._on_cuda, copies=self._copies)
        self._reads = of_place(module, slots)
        return self._reads

    def ended(self) -> Ready:
        """Returns a `Ready` that passes when everything filled so far has its values."""
        return NOW if self._copies is None else self._copies.fence()

    def hold_computing(self) -> None:
        """Have what is enqueued later wait on the device for everything filled so far. Returns at once."""
        if self._copies is not None:
            self._copies.hold_computing()

    def _here(self, module: nn.Module, slots: Slots) -> Generator[Read]:
        files = list(dict.fromkeys(slot.file for slot in slots))
        pages = of_pages(slots, {file: mapped(file) for file in files} if self._place.type == "cpu" else {})
        in_place = [slot for slot in slots if slot.direct and slot.name in pages]
        others = Slots(slot for slot in slots if not (slot.direct and slot.name in pages))
        flat = Flat(others, _HOST)
        yield from read_pages(slots, pages, flat)
        yield from read_plainly([slot for slot in slots if slot.name not in pages], flat)
        values = flat.tensors(others) | {slot.name: as_tensor(slot, pages[slot.name]) for slot in in_place}
        values = {name: value.to(self._place) for name, value in values.items()}
        for _ in _assign_all(module, slots.owners_in(module), lambda: values, self._place):
            yield Read(0)

    def _on_cuda(self, module: nn.Module, slots: Slots, copies: CudaCopies) -> Generator[Read]:
        flat = Flat(slots, self._place)
        yield Read(0)
        # Making the tensors takes as long as some of the copies, and runs beside them.
        views = _assign_all(module, slots.owners_in(module), partial(flat.tensors, slots), self._place)
        yield from read_to_cuda(slots, flat, copies, self._tier, self._ending, views)


def named_sources(files: Sequence[WeightFile], wanted: Mapping[str, torch.Tensor]) -> Sources:
    """The sources of the wanted tensors in files with the module's names, or older ones for the same."""
    found: dict[str, Source] = {}
    for file in files:
        stored = {name: Source(file, entry) for name, entry in file.tensors.items()}
        found = {**matched(stored, wanted), **found}
    return found


def matched(stored: Mapping[str, Source], wanted: Mapping[str, torch.Tensor]) -> dict[str, Source]:
    """The sources by the names that the module has for them."""
    found: dict[str, Source] = {}
    for stored_name, source in stored.items():
        for name in _names(stored_name):
            if name in wanted:
                found.setdefault(name, source)
    return found


def _names(stored: str) -> Iterator[str]:
    """Names that a stored tensor can have in the module, likeliest first."""
    yield stored
    # transformers 5 builds CLIPTextModel without the outer level that 4 and every published file have.
    yield stored.removeprefix("text_model.")
    yield stored.removeprefix("model.")  # of a language model with its head, which has no use here
    if stored == "shared.weight":
        yield "encoder.embed_tokens.weight"  # T5's, which the two names share
    head, _, last = stored.rpartition(".")
    parent, _, old = head.rpartition(".")
    if old in _OLD_ATTENTION:
        yield f"{parent}.{_OLD_ATTENTION[old]}.{last}"


def _slot(
    component: str,
    name: str,
    sources: Sources,
    like: torch.Tensor,
    dtype: torch.dtype,
    layout: torch.memory_format,
    quantization: str,
) -> Slot:
    """Where a tensor of the module comes from, checked: its dtype must be convertible, its shape the module's."""
    if name not in sources:
        message = f"{component} lacks the tensor {name}; replace its files"
        raise DataLoss(message, ErrorReason.MODEL_CORRUPT, component=component, tensor=name)
    file, entry, pieces = sources[name]
    stored = DTYPES.get(entry.dtype)
    if stored is None or stored.is_floating_point != like.is_floating_point():
        able = ", ".join(
            known for known, dtype in DTYPES.items() if dtype.is_floating_point == like.is_floating_point()
        )
        message = f"the tensor {entry.name} of {component} is stored as {entry.dtype}; this worker reads {able}"
        facts = {"component": component, "file": file.name, "tensor": entry.name, "dtype": entry.dtype}
        raise FailedPrecondition(message, ErrorReason.MODEL_INCOMPATIBLE, **facts)
    _check_shape(component, entry, like.shape)
    target = CODES.get(quantization, dtype) if stored.is_floating_point else stored
    return Slot(name, file, entry, stored, target, like.shape, pieces, layout, quantization)


def _check_shape(component: str, entry: TensorEntry, shape: torch.Size) -> None:
    # Old VAE files keep attention's linear layers as 1x1 convolutions.
    if entry.shape == shape or (entry.elements == shape.numel() and [n for n in entry.shape if n != 1] == list(shape)):
        return
    message = (
        f"the tensor {entry.name} of {component} has the shape {entry.shape}; its config.json asks for {tuple(shape)}"
    )
    facts = {"component": component, "tensor": entry.name, "shape": entry.shape, "expected_shape": tuple(shape)}
    raise DataLoss(message, ErrorReason.MODEL_CORRUPT, **facts)


def _assign_all(
    module: nn.Module,
    owners: Mapping[str, nn.Module],
    values: Callable[[], Mapping[str, torch.Tensor]],
    place: torch.device,
) -> Generator[None]:
    """Set the tensors of a module. Yields after some of them: a large module has thousands. `owners`: the module and all in
    it, by path."""
    tensors = values()
    yield
    for number, (name, value) in enumerate(tensors.items()):
        assign(owners, name, value)
        if number % _AT_ONCE == _AT_ONCE - 1:
            yield
    for name, value in {**derived_buffers(module, owners), **derived_parameters(module)}.items():
        assign(owners, name, value.to(place))


def assign(owners: Mapping[str, nn.Module], name: str, value: torch.Tensor) -> None:
    """Set one tensor of a module. `owners`: the module and all in it, by path."""
    owner_name, _, leaf = name.rpartition(".")
    parameters, buffers = owners[owner_name]._parameters, owners[owner_name]._buffers  # pyright: ignore[reportPrivateUsage]  # setattr takes 10 µs
    if leaf in parameters:
        parameters[leaf] = nn.Parameter(value, requires_grad=False)
    else:
        buffers[leaf] = value
