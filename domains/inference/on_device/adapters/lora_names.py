"""Finds the layer that each tensor of a LoRA belongs to: diffusers converts the names of all formats.

Names are converted, not tensors: two small tensors stand in for each layer, and their values identify it after the
conversion. So diffusers' conversions also serve LoHa, LoKr and DoRA, which it cannot load itself.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from diffusers.loaders.lora_conversion_utils import (
    _convert_non_diffusers_lora_to_diffusers,  # pyright: ignore[reportPrivateUsage]  # its public form drops dora_scale
    _maybe_map_sgm_blocks_to_diffusers,  # pyright: ignore[reportPrivateUsage]
)
from diffusers.utils.state_dict_utils import (
    convert_state_dict_to_diffusers,
    convert_state_dict_to_peft,
    convert_unet_state_dict_to_peft,
)
from torch import Tensor

_KOHYA = ("lora_unet_", "lora_te_", "lora_te1_", "lora_te2_")
_COMFYUI = {
    "diffusion_model.": "lora_unet_",
    "text_encoders.clip_l.transformer.": "lora_te1_",
    "text_encoders.clip_g.transformer.": "lora_te2_",
    "text_encoders.clip_h.transformer.": "lora_te1_",
}
"""ComfyUI writes the names of the original networks with dots, kohya with underscores."""
_COMPONENTS = re.compile(r"^(unet|transformer|text_encoder|text_encoder_2|text_encoder_3)\.")
_END = re.compile(r"\.(?:processor\.)?lora_[AB](?:\.weight)?$|\.lora_linear_layer\.(?:up|down)\.weight$")

_DOWN = re.compile(r"[._](?:lora_A|lora\.down|lora_linear_layer\.down|lora_down)(?:\.default)?(?:\.weight)?$")


class Layer(NamedTuple):
    """A layer of a model."""

    component: str
    path: str


def layers_of(stems: Mapping[str, Sequence[str]], unet_config: Any) -> dict[str, Layer]:
    """The layer of each stem, by diffusers' rules; stems that it does not convert are left out.

    `stems`: the names of a layer's tensors by what they have in common; for transformers in diffusers' format.
    `unet_config`: of the model's own UNet; None: it has none.
    """
    ordered = list(stems)
    kohya = {index: kohya_name(stem) for index, stem in enumerate(ordered)}
    standing: dict[str, Tensor] = {}
    others: dict[str, Tensor] = {}
    for index, stem in enumerate(ordered):
        number = torch.tensor(index)
        if (name := kohya[index]) is not None:
            standing |= {f"{name}.lora_down.weight": number, f"{name}.lora_up.weight": number}
        else:
            others[_down(stem, stems[stem])] = number
    converted = _own_names(_converted_kohya(standing, unet_config) | others)
    return {ordered[index]: layer for index, layer in converted.items()}


def kohya_name(stem: str) -> str | None:
    """The stem as kohya writes it. None: it is of diffusers' format."""
    if stem.startswith(_KOHYA):
        return stem
    start = next((start for start in _COMFYUI if stem.startswith(start)), None)
    return None if start is None else _COMFYUI[start] + stem.removeprefix(start).replace(".", "_")


def _converted_kohya(standing: dict[str, Tensor], unet_config: Any) -> dict[str, Tensor]:
    if not standing:
        return {}
    return _convert_non_diffusers_lora_to_diffusers(_maybe_map_sgm_blocks_to_diffusers(standing, unet_config))[0]


def _down(stem: str, names: Sequence[str]) -> str:
    """The full name of a layer's first matrix, without the name of the adapter that peft may put into it."""
    # The names can be those of another layer, whose rows stand in for this one.
    own = (name for name in names if name.startswith(stem) and _DOWN.search(name))
    found = next(own, f"{stem}.lora_A.weight")
    # LyCORIS has kohya's ends of names behind paths of modules.
    plain = found.replace(".default.", ".").replace(".lora_down.weight", ".lora_A.weight")
    return plain.removeprefix("base_model.model.")


_CONVERSIONS: Mapping[str, Sequence[Callable[[dict[str, Tensor]], dict[str, Tensor]]]] = {
    "unet": (convert_unet_state_dict_to_peft,),
    "transformer": (convert_unet_state_dict_to_peft,),
    "text_encoder": (convert_state_dict_to_diffusers, convert_state_dict_to_peft),
    "text_encoder_2": (convert_state_dict_to_diffusers, convert_state_dict_to_peft),
    "text_encoder_3": (convert_state_dict_to_diffusers, convert_state_dict_to_peft),
}


def _own_names(tensors: Mapping[str, Tensor]) -> dict[int, Layer]:
    """The layers by number, under the names of their modules."""
    found: dict[int, Layer] = {}
    for component, conversions in _CONVERSIONS.items():
        some = {name.removeprefix(f"{component}."): one for name, one in tensors.items() if _of(name) == component}
        for convert in conversions if some else ():
            some = convert(some)
        for name, number in some.items():
            if _END.search(name):
                found[int(number.item())] = Layer(component, _END.sub("", name))
    return found


def _of(name: str) -> str:
    found = _COMPONENTS.match(name)
    return found[1] if found else ""
