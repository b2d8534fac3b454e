"""Fills an empty module from safetensors files, tensor by tensor."""

from collections.abc import Generator, Iterator, Mapping, Sequence

import torch
from torch import nn

from domains.errors import DataLoss, ErrorReason, FailedPrecondition
from domains.model.safetensors_header import TensorEntry
from domains.model.weight_file import WeightFile

# Names that older exports use for the VAE's attention, and what diffusers calls them now.
_OLD_ATTENTION = {"query": "to_q", "key": "to_k", "value": "to_v", "proj_attn": "to_out.0"}

_TORCH_NAMES = {
    **{"F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16"},
    **{"F8_E4M3": "float8_e4m3fn", "F8_E5M2": "float8_e5m2"},
    **{"F8_E4M3FNUZ": "float8_e4m3fnuz", "F8_E5M2FNUZ": "float8_e5m2fnuz"},
    **{"I64": "int64", "I32": "int32", "I16": "int16", "I8": "int8", "U8": "uint8", "BOOL": "bool"},
}
DTYPES: Mapping[str, torch.dtype] = {
    name: getattr(torch, torch_name) for name, torch_name in _TORCH_NAMES.items() if hasattr(torch, torch_name)
}
"""Stored dtype → torch's; only those that the installed torch has."""
_DIRECT = (torch.float32, torch.float16, torch.bfloat16)
"""Floats that every device converts; the others become float32 on the host first."""

Source = tuple[WeightFile, TensorEntry]


def fill(
    module: nn.Module,
    component: str,
    files: Sequence[WeightFile],
    place: torch.device,
    dtype: torch.dtype,
) -> Generator[int]:
    """Give every parameter and buffer of a `meta` module its values from the files, on `place` as `dtype`.

    Yields after each tensor its bytes in the file. Tensors that the module does not know are ignored. Raises
    COMPONENT_MISSING (no file),
    MODEL_CORRUPT (a broken file, a tensor missing or of another shape), MODEL_INCOMPATIBLE (a dtype that cannot be
    converted), ILLEGAL_STATE (a file changed meanwhile).
    """
    if not files:
        message = f"the model has no safetensors file for {component}; restore it and scan again"
        raise FailedPrecondition(message, ErrorReason.COMPONENT_MISSING, component=component)
    wanted = module.state_dict(keep_vars=True)
    sources = _sources(files, wanted)
    chosen = {name: _judged(component, name, sources, like) for name, like in wanted.items()}
    room = _Room(max((entry.end - entry.begin for _, entry in chosen.values()), default=0))
    for name, source in chosen.items():
        value = room.read(source)
        _assign(module, name, _moved(_shaped(component, source[1].name, value, wanted[name].shape), place, dtype))
        yield value.nbytes
    for file in files:
        file.check_unchanged()
    _fill_positions(module, place)


def _sources(files: Sequence[WeightFile], wanted: Mapping[str, torch.Tensor]) -> Mapping[str, Source]:
    """Wanted name → the file that has it, and its entry."""
    found: dict[str, Source] = {}
    for file in files:
        for stored, entry in file.tensors.items():
            for name in _names(stored):
                if name in wanted:
                    found.setdefault(name, (file, entry))
    return found


def _names(stored: str) -> Iterator[str]:
    """Names that a stored tensor can have in the module, likeliest first."""
    yield stored
    # transformers 5 builds CLIPTextModel without the outer level that 4 and every published file have.
    yield stored.removeprefix("text_model.")
    head, _, last = stored.rpartition(".")
    parent, _, old = head.rpartition(".")
    if old in _OLD_ATTENTION:
        yield f"{parent}.{_OLD_ATTENTION[old]}.{last}"


def _judged(component: str, name: str, sources: Mapping[str, Source], like: torch.Tensor) -> Source:
    """The source of a tensor of the module, checked: its dtype must be convertible."""
    if name not in sources:
        message = f"{component} lacks the tensor {name}; replace its files"
        raise DataLoss(message, ErrorReason.MODEL_CORRUPT, component=component, tensor=name)
    file, entry = sources[name]
    stored = DTYPES.get(entry.dtype)
    if stored is None or stored.is_floating_point != like.is_floating_point():
        able = ", ".join(
            known for known, dtype in DTYPES.items() if dtype.is_floating_point == like.is_floating_point()
        )
        message = f"the tensor {entry.name} of {component} is stored as {entry.dtype}; this worker reads {able}"
        facts = {"component": component, "file": file.name, "tensor": entry.name, "dtype": entry.dtype}
        raise FailedPrecondition(message, ErrorReason.MODEL_INCOMPATIBLE, **facts)
    return file, entry


class _Room:
    """Host memory into which each tensor is read in turn. The file is read, not mapped: a file that is cut off
    meanwhile is then an error, and does not kill the process."""

    def __init__(self, size: int) -> None:
        self._bytes = torch.empty(size, dtype=torch.uint8)

    def read(self, source: Source) -> torch.Tensor:
        """A tensor as stored; valid until the next call."""
        file, entry = source
        part = self._bytes[: entry.end - entry.begin]
        file.read_into(entry, part.numpy().data)
        return part.view(DTYPES[entry.dtype]).reshape(entry.shape)


def _shaped(component: str, stored: str, value: torch.Tensor, shape: torch.Size) -> torch.Tensor:
    if value.shape != shape and value.numel() == shape.numel() and value.squeeze().shape == shape:
        value = value.reshape(shape)  # old VAE files keep attention's linear layers as 1x1 convolutions
    if value.shape != shape:
        has, needs = tuple(value.shape), tuple(shape)
        message = f"the tensor {stored} of {component} has the shape {has}; its config.json asks for {needs}"
        raise DataLoss(
            message, ErrorReason.MODEL_CORRUPT, component=component, tensor=stored, shape=has, expected_shape=needs
        )
    return value


def _moved(value: torch.Tensor, place: torch.device, dtype: torch.dtype) -> torch.Tensor:
    """A copy on the device; convolutions channels last, which they compute fastest in."""
    target = dtype if value.is_floating_point() else value.dtype
    if value.is_floating_point() and value.dtype not in _DIRECT:
        value = value.to(torch.float32)
    layout = torch.channels_last if value.ndim == 4 else torch.contiguous_format
    return value.to(device=place, dtype=target, copy=True, memory_format=layout)


def _assign(module: nn.Module, name: str, value: torch.Tensor) -> None:
    owner_name, _, leaf = name.rpartition(".")
    owner = module.get_submodule(owner_name)
    is_parameter = isinstance(getattr(owner, leaf), nn.Parameter)
    setattr(owner, leaf, nn.Parameter(value, requires_grad=False) if is_parameter else value)


def _fill_positions(module: nn.Module, place: torch.device) -> None:
    """CLIP's position ids are the one buffer that no file carries."""
    for name, buffer in list(module.named_buffers()):
        if buffer.is_meta and name.endswith("position_ids"):
            _assign(module, name, torch.arange(buffer.shape[-1], device=place).expand(buffer.shape))
