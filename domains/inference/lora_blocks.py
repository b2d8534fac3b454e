"""The blocks of a component in the order of its layers, as block weights of a LoRA count them.

A UNet's are those of the original network, as in A1111's extension and in kohya's trainer: the first convolution, then each
ResNet with its attention and each change of resolution; the middle; each ResNet on the way up. SD 1.x has 12 + 1 + 12.
"""

from collections.abc import Mapping, Sequence
from typing import Any

Blocks = Sequence[tuple[str, ...]]
"""For each block the beginnings of its layers' paths."""

_LISTS: Mapping[str, Sequence[tuple[str, str]]] = {
    "sd3": (("transformer_blocks", "num_layers"),),
    "flux1": (("transformer_blocks", "num_layers"), ("single_transformer_blocks", "num_single_layers")),
    "chroma": (("transformer_blocks", "num_layers"), ("single_transformer_blocks", "num_single_layers")),
    "auraflow": (
        ("joint_transformer_blocks", "num_mmdit_layers"),
        ("single_transformer_blocks", "num_single_dit_layers"),
    ),
    "z_image": (
        ("noise_refiner", "n_refiner_layers"),
        ("context_refiner", "n_refiner_layers"),
        ("layers", "n_layers"),
    ),
}
"""By family: the lists of blocks in its transformer, and the key of their number in its config."""
_TEXT_LISTS = (
    ("encoder.layers", "num_hidden_layers"),
    ("encoder.block", "num_layers"),
    ("layers", "num_hidden_layers"),
)
"""Of CLIP, of T5, and of language models; the first whose key and kind fit."""


def blocks_of(family: str, component: str, config: Mapping[str, Any]) -> Blocks:
    """The blocks of a component with this config.json. Empty: its blocks have no order that is known."""
    if component == "unet":
        return _unet(config)
    if component == "transformer":
        return [block for name, key in _LISTS.get(family, ()) for block in _list(name, config.get(key, 0))]
    if component.startswith("text_encoder"):
        return _text(config)
    return ()


def block_of(path: str, blocks: Blocks) -> int | None:
    """The block that a layer belongs to. None: it belongs to no block, like the last convolution."""
    return next((place for place, starts in enumerate(blocks) if f"{path}.".startswith(starts)), None)


def _list(name: str, count: int) -> Blocks:
    return [(f"{name}.{place}.",) for place in range(count)]


def _text(config: Mapping[str, Any]) -> Blocks:
    kind = str(config.get("model_type", ""))
    name, key = _TEXT_LISTS[1 if "t5" in kind else 0 if kind.startswith("clip") else 2]
    # transformers 4 has CLIP's layers one level deeper.
    return [(f"{name}.{place}.", f"text_model.{name}.{place}.") for place in range(config.get(key, 0))]


def _unet(config: Mapping[str, Any]) -> Blocks:
    levels = len(config["block_out_channels"])
    own = config["layers_per_block"]
    resnets = [own] * levels if isinstance(own, int) else [*own]
    found: list[tuple[str, ...]] = [("conv_in.",)]
    for level, count in enumerate(resnets):
        found += [_pair(f"down_blocks.{level}", place) for place in range(count)]
        found += [(f"down_blocks.{level}.downsamplers.",)] if level < levels - 1 else []
    found.append(("mid_block.",))
    for level, count in enumerate(reversed(resnets)):
        pairs = [_pair(f"up_blocks.{level}", place) for place in range(count + 1)]
        found += [*pairs[:-1], (*pairs[-1], f"up_blocks.{level}.upsamplers.")]
    return found


def _pair(level: str, place: int) -> tuple[str, ...]:
    return f"{level}.resnets.{place}.", f"{level}.attentions.{place}."
