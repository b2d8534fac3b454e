"""Reads the config of a ControlNet of Z-Image from its file: the published ones have no config.json beside them.

diffusers tells them by the same tensors (`infer_diffusers_model_type`), and then loads a config from the network.
"""

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from domains.model.model import Model
from domains.model.on_device.network_loading import without_config
from domains.model.on_device.on_device_model import OnDeviceModel
from domains.model.safetensors_header import TensorEntry
from domains.model.weight_file import WeightFile

_PLACES: Mapping[int, range] = {6: range(0, 30, 5), 15: range(0, 30, 2)}
"""Number of blocks → the layers of the model behind which they count, as published: Union 1.0; 2.0 and 2.1."""

_OF_MODEL = ("all_patch_size", "all_f_patch_size", "dim", "n_heads", "n_kv_heads", "norm_eps", "qk_norm")
_MAP = "control_all_x_embedder.2-1.weight"
_REFINER = "control_noise_refiner"
_BEGINS = f"{_REFINER}.0.before_proj.weight"
"""The map enters by this layer of a refiner that guides that of the model."""
_VALUES_OF_TOKEN = 4
"""A token is a square of 2×2 latent pixels."""
_PIECE = 1 << 20
_ZERO = b"\0\x80"
"""Bytes of 0 and of −0 in every precision."""


def z_image_config(model: Model, base: OnDeviceModel, tensors: Mapping[str, TensorEntry]) -> dict[str, Any]:
    """The config of `ZImageControlNetModel`. Raises COMPONENT_MISSING for a number of blocks that no published one has."""
    places = _PLACES.get(_count(tensors, "control_layers"))
    if places is None or _MAP not in tensors:
        raise without_config(model)
    ours: Any = base.modules["transformer"].config
    refiner = _count(tensors, _REFINER)
    return {
        **{name: ours[name] for name in _OF_MODEL},
        "control_in_dim": tensors[_MAP].shape[1] // _VALUES_OF_TOKEN,
        "control_layers_places": [*places],
        "control_refiner_layers_places": [*range(ours["n_refiner_layers"])],
        "add_control_noise_refiner": _guides_refiner(model, tensors, refiner),
        "n_refiner_layers": refiner or ours["n_refiner_layers"],
    }


def _guides_refiner(model: Model, tensors: Mapping[str, TensorEntry], refiner: int) -> str | None:
    """What guides the refiner of the model. None: nothing."""
    if refiner and _BEGINS not in tensors:
        return None
    # Union 2.0 was trained with its layers in place of its refiner, which the file has as it was before: with zeros.
    return _REFINER if _BEGINS in tensors and _has_values(model) else "control_layers"


def _has_values(model: Model) -> bool:
    """Whether the refiner's first layer was trained."""
    for path in (file.path for file in model.files if file.path.endswith(".safetensors")):
        with WeightFile(model, path) as file:
            if _BEGINS in file.tensors:
                return any(_pieces(file, file.tensors[_BEGINS]))
    return False


def _pieces(file: WeightFile, tensor: TensorEntry) -> Iterator[bytearray]:
    """The bytes of a tensor in pieces, without the zeros at both ends of each."""
    begin, size = file.place_of(tensor), tensor.end - tensor.begin
    for at in range(0, size, _PIECE):
        memory = bytearray(min(_PIECE, size - at))
        file.read_at(begin + at, memoryview(memory))
        yield memory.strip(_ZERO)


def _count(tensors: Iterable[str], blocks: str) -> int:
    """Number of blocks in a list of them."""
    return len({found[1] for name in tensors if (found := re.match(rf"{blocks}\.(\d+)\.", name))})
