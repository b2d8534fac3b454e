"""Tells which families an adapter can be added to, from the layers that it changes and how many features they read."""

import re
from collections.abc import Iterator, Mapping

import msgspec

from domains.model.detect.lora_names import Adapter, Module


class Base(msgspec.Struct, frozen=True, kw_only=True):
    """Layers that prove the families of an adapter's base."""

    families: tuple[str, ...]
    """The first is the family that the others are derived from."""
    layer: re.Pattern[str]
    """Names of layers, whole."""
    inputs: tuple[int, ...] = ()
    """Features that they read. Empty: the name proves enough."""
    text: bool = False
    """Whether they belong to a text encoder."""
    most_blocks: Mapping[str, int] = {}
    """Prefix of blocks → their number in the base: an adapter with a higher one has another base."""
    without: str = ""
    """Text in names of layers that the base does not have. Empty: none."""

    def shows(self, module: Module) -> bool:
        """Whether the module is such a layer."""
        return (
            module.of_text is self.text
            and (not self.inputs or module.inputs in self.inputs)
            and self.layer.fullmatch(module.name) is not None
        )


def _unet(families: tuple[str, ...], width: int) -> Base:
    return Base(
        families=families, layer=re.compile(r"(?:down|up|mid|input|output|middle)_.*attn2_to_[kv]"), inputs=(width,)
    )


_FLUX_BLOCKS = {"double_blocks_": 19, "single_blocks_": 38, "single_transformer_blocks_": 38, "transformer_blocks_": 19}

BASES = (
    _unet(("sd1",), 768),
    _unet(("sd2",), 1024),
    _unet(("sdxl", "kolors"), 2048),
    _unet(("sdxl_refiner",), 1280),
    Base(families=("pixart",), layer=re.compile(r"transformer_blocks_\d+_attn2_to_[kv]"), inputs=(1152,)),
    Base(families=("sana",), layer=re.compile(r"transformer_blocks_\d+_attn2_to_[kv]"), inputs=(2240,)),
    Base(
        families=("flux1", "chroma"),
        layer=re.compile(r"double_blocks_\d+_(?:img|txt)_(?:attn_(?:qkv|proj)|mlp_\d)(?:_lora\d)?"),
        inputs=(3072, 12288),
        most_blocks=_FLUX_BLOCKS,
    ),
    Base(
        families=("flux1", "chroma"),
        layer=re.compile(r"single_blocks_\d+_linear[12]"),
        inputs=(3072, 15360),
        most_blocks=_FLUX_BLOCKS,
    ),
    Base(
        families=("flux1", "chroma"),
        layer=re.compile(r"single_transformer_blocks_\d+_proj_(?:mlp|out)"),
        inputs=(3072, 15360),
        most_blocks=_FLUX_BLOCKS,
        without="joint_transformer_blocks_",
    ),
    Base(
        families=("sd3",), layer=re.compile(r"joint_blocks_\d+_(?:x|context)_block_.*"), inputs=(1536, 2432, 6144, 9728)
    ),
    Base(families=("sd3",), layer=re.compile(r"transformer_blocks_\d+_attn_add_[qkv]_proj"), inputs=(1536, 2432)),
    Base(
        families=("qwen_image",),
        layer=re.compile(r"transformer_blocks_\d+_(?:img|txt)_(?:mlp|mod)_.*"),
        inputs=(3072, 12288),
    ),
    Base(families=("z_image",), layer=re.compile(r"layers_\d+_attention_(?:to_[qkv]|qkv)"), inputs=(3840,)),
    Base(families=("lumina2",), layer=re.compile(r"layers_\d+_att(?:n|ention)_(?:to_[qkv]|qkv)"), inputs=(2304,)),
    Base(families=("flux2",), layer=re.compile(r"single_transformer_blocks_\d+_attn_to_qkv_mlp_proj")),
)


def bases(adapter: Adapter) -> Mapping[tuple[str, ...], list[str]]:
    """Families → names of the layers that prove them. More than one entry: the adapter contradicts itself."""
    found: dict[tuple[str, ...], list[str]] = {}
    widths = {module.inputs for module in adapter.modules}
    for base in BASES:
        if base.inputs and widths.isdisjoint(base.inputs):
            continue
        shown = [module.name for module in adapter.modules if base.shows(module)]
        if shown and _possible(base, adapter):
            found.setdefault(base.families, []).extend(shown)
    return {_narrowed(families, adapter): layers for families, layers in found.items()}


def _possible(base: Base, adapter: Adapter) -> bool:
    names = [module.name for module in adapter.modules if not module.of_text]
    if base.without and any(base.without in name for name in names):
        return False
    return all(number < most for start, most in base.most_blocks.items() for number in _numbers(names, start))


def _numbers(names: list[str], start: str) -> Iterator[int]:
    """The numbers of the blocks that the names belong to."""
    pattern = re.compile(re.escape(start) + r"(\d+)_")
    return (int(found[1]) for name in names if (found := pattern.match(name)))


def _narrowed(families: tuple[str, ...], adapter: Adapter) -> tuple[str, ...]:
    """The families; only the first if the adapter changes text encoders or modulations: no adapter of the others does."""
    modulated = any("_mod_" in module.name or "_norm1_linear" in module.name for module in adapter.modules)
    return families[:1] if adapter.encoders or modulated else families
