"""Headers of adapters, made from those of published denoisers: which layers trainers change, and how they name them."""

import re
from collections.abc import Callable, Iterable, Mapping

from domains.model.families.sign import Shape
from tests.domains.model import published

Shapes = dict[str, Shape]
Pair = Callable[[str, Shape, int], Mapping[str, Shape]]
"""Tensors of one layer: its name in the format, the shape of its weight, the rank."""

_LAYER = re.compile(r"(?:attn|attention|transformer_blocks|joint_blocks|double_blocks|single_blocks|layers|refiner)")


def layers(header: str, keep: str = "") -> Iterable[tuple[str, Shape]]:
    """The linear layers of a denoiser's blocks; `keep`: only names that match this."""
    for full, shape in published.header(header).items():
        name = full.removeprefix("model.diffusion_model.")
        if name.endswith(".weight") and len(shape) == 2 and _LAYER.search(name) and re.search(keep, name):
            yield name.removesuffix(".weight"), shape


def kohya(name: str, shape: Shape, rank: int) -> Shapes:
    stem = f"lora_unet_{name.replace('.', '_')}"
    return {
        f"{stem}.lora_down.weight": (rank, shape[1]),
        f"{stem}.lora_up.weight": (shape[0], rank),
        f"{stem}.alpha": (),
    }


def diffusers(name: str, shape: Shape, rank: int, outer: str = "transformer") -> Shapes:
    return {f"{outer}.{name}.lora_A.weight": (rank, shape[1]), f"{outer}.{name}.lora_B.weight": (shape[0], rank)}


def of_unet(name: str, shape: Shape, rank: int) -> Shapes:
    return diffusers(name, shape, rank, "unet")


def old_diffusers(name: str, shape: Shape, rank: int) -> Shapes:
    stem = name.replace(".to_", ".processor.to_").replace(".to_out.0", ".to_out")
    return {f"unet.{stem}_lora.down.weight": (rank, shape[1]), f"unet.{stem}_lora.up.weight": (shape[0], rank)}


def comfyui(name: str, shape: Shape, rank: int) -> Shapes:
    return diffusers(name, shape, rank, "diffusion_model")


def dora(name: str, shape: Shape, rank: int) -> Shapes:
    return {**kohya(name, shape, rank), f"lora_unet_{name.replace('.', '_')}.dora_scale": (1, shape[1])}


def loha(name: str, shape: Shape, rank: int) -> Shapes:
    stem = f"lora_unet_{name.replace('.', '_')}"
    return {
        **{f"{stem}.hada_w{number}_a": (shape[0], rank) for number in (1, 2)},
        **{f"{stem}.hada_w{number}_b": (rank, shape[1]) for number in (1, 2)},
        f"{stem}.alpha": (),
    }


def lokr(name: str, shape: Shape, rank: int) -> Shapes:
    stem = f"lora_unet_{name.replace('.', '_')}"
    return {
        f"{stem}.lokr_w1": (8, 8),
        f"{stem}.lokr_w2_a": (shape[0] // 8, rank),
        f"{stem}.lokr_w2_b": (rank, shape[1] // 8),
        f"{stem}.alpha": (),
    }


def locon(name: str, shape: Shape, rank: int) -> Shapes:
    convolution = "lora_unet_down_blocks_0_resnets_0_conv1"
    return {
        **kohya(name, shape, rank),
        f"{convolution}.lora_down.weight": (rank, 320, 3, 3),
        f"{convolution}.lora_up.weight": (320, rank, 1, 1),
        f"{convolution}.alpha": (),
    }


def adapter(header: str, form: Pair, keep: str = "", rank: int = 16) -> Shapes:
    """The header of an adapter for the denoiser `header`."""
    return {key: shape for name, of in layers(header, keep) for key, shape in form(name, of, rank).items()}
