"""Values of a published config that differ between models of one family, and that the tensors of a single file tell."""

import math
import re
from collections.abc import Callable, Mapping
from typing import Any

from domains.model.families import FAMILIES
from domains.model.families.sign import Tensors

Settings = Mapping[str, Any]


def settings_of(family: str, component: str, tensors: Tensors) -> Settings:
    """What the tensors of a whole file say about a component, in the words of its config.json. Empty: nothing."""
    read = _READERS.get((family, component))
    if read is None:
        return {}
    part = FAMILIES[family].part(component)
    starts = part.prefixes if part else ()
    start = next((one for one in starts if any(name.startswith(one) for name in tensors)), "")
    return read({name.removeprefix(start): shape for name, shape in tensors.items() if name.startswith(start)})


def _unet(tensors: Tensors) -> Settings:
    first = tensors.get("input_blocks.0.0.weight") or tensors.get("conv_in.weight")
    return {"in_channels": first[1]} if first else {}


_HEAD = 64
"""Width of an attention head of SD3."""


def _sd3(tensors: Tensors) -> Settings:
    """Settings from the authors' tensor names; none for a file with diffusers' names, which is taken as published."""
    if "context_embedder.weight" not in tensors or "pos_embed" not in tensors:
        return {}
    width = tensors["context_embedder.weight"][0]
    return {
        "num_layers": _count(tensors, r"joint_blocks\.(\d+)\."),
        "caption_projection_dim": width,
        "num_attention_heads": width // _HEAD,
        "pos_embed_max_size": math.isqrt(tensors["pos_embed"][1]),
        "qk_norm": "rms_norm" if any(".ln_q." in name for name in tensors) else None,
        "dual_attention_layers": sorted(_numbers(tensors, r"joint_blocks\.(\d+)\.x_block\.attn2\.")),
    }


def _flux1(tensors: Tensors) -> Settings:
    if "img_in.weight" not in tensors:
        return {}
    return {
        "num_layers": _count(tensors, r"double_blocks\.(\d+)\."),
        "num_single_layers": _count(tensors, r"single_blocks\.(\d+)\."),
        "guidance_embeds": any(name.startswith("guidance_in.") for name in tensors),
        "in_channels": tensors["img_in.weight"][1],
        "out_channels": tensors["final_layer.linear.weight"][0],
    }


def _numbers(tensors: Tensors, pattern: str) -> set[int]:
    return {int(found[1]) for name in tensors if (found := re.match(pattern, name))}


def _count(tensors: Tensors, pattern: str) -> int:
    return max(_numbers(tensors, pattern), default=-1) + 1


_READERS: Mapping[tuple[str, str], Callable[[Tensors], Settings]] = {
    ("sd1", "unet"): _unet,
    ("sd2", "unet"): _unet,
    ("sdxl", "unet"): _unet,
    ("sd3", "transformer"): _sd3,
    ("flux1", "transformer"): _flux1,
}
