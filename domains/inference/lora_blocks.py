"""The blocks of a component in the order of its layers, as block weights of a LoRA count them.

A UNet's are those of the original network, as in A1111's extension and in kohya's trainer: the first convolution, then each
ResNet with its attention and each change of resolution; the middle; each ResNet on the way up. SD 1.x has 12 + 1 + 12.
"""

from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from typing import Any

from domains.inference import limits

MOST = 4 * limits.BLOCK_WEIGHTS
"""A config with more blocks than this is of no network."""

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
    """The blocks of a component with this config.json, which can come from anywhere. Empty: its blocks have no order that is
    known, or it counts more than `MOST`."""
    found = [*islice(_blocks(family, component, config), MOST + 1)]
    return found if len(found) <= MOST else ()


def _blocks(family: str, component: str, config: Mapping[str, Any]) -> Iterator[tuple[str, ...]]:
    if component == "unet":
        yield from _unet(config)
    if component == "transformer":
        for name, key in _LISTS.get(family, ()):
            yield from _list(name, _count(config.get(key)))
    if component.startswith("text_encoder"):
        yield from _text(config)


def block_of(path: str, blocks: Blocks) -> int | None:
    """The block that a layer belongs to. None: it belongs to no block, like the last convolution."""
    return next((place for place, starts in enumerate(blocks) if f"{path}.".startswith(starts)), None)


def _count(value: object) -> int:
    """A number of blocks. 0 for what is none."""
    return value if isinstance(value, int) else 0


def _list(name: str, count: int) -> Iterator[tuple[str, ...]]:
    return ((f"{name}.{place}.",) for place in range(count))


def _text(config: Mapping[str, Any]) -> Iterator[tuple[str, ...]]:
    kind = str(config.get("model_type", ""))
    name, key = _TEXT_LISTS[1 if "t5" in kind else 0 if kind.startswith("clip") else 2]
    # transformers 4 has CLIP's layers one level deeper.
    return ((f"{name}.{place}.", f"text_model.{name}.{place}.") for place in range(_count(config.get(key))))


def _unet(config: Mapping[str, Any]) -> Iterator[tuple[str, ...]]:
    widths, own = config.get("block_out_channels"), config.get("layers_per_block")
    if not isinstance(widths, Sequence):
        return
    levels = len(widths)
    resnets = [_count(one) for one in own] if isinstance(own, Sequence) else [_count(own)] * levels
    yield ("conv_in.",)
    for level, count in enumerate(resnets):
        yield from (_pair(f"down_blocks.{level}", place) for place in range(count))
        if level < levels - 1:
            yield (f"down_blocks.{level}.downsamplers.",)
    yield ("mid_block.",)
    for level, count in enumerate(reversed(resnets)):
        yield from (_pair(f"up_blocks.{level}", place) for place in range(count))
        yield (*_pair(f"up_blocks.{level}", count), f"up_blocks.{level}.upsamplers.")


def _pair(level: str, place: int) -> tuple[str, ...]:
    return f"{level}.resnets.{place}.", f"{level}.attentions.{place}."
