"""Reads the names of an adapter's tensors: which module each one changes, in which key format, by which algorithm.

Formats: kohya (`lora_unet_…`), diffusers and peft (`unet.….lora_A.weight`), ComfyUI (`diffusion_model.….lora_A.weight`).
Algorithms: LoRA, LoCon (LoRA of convolutions), LoHa, LoKr, DoRA, and whole differences.
"""

import re
from collections.abc import Mapping
from functools import lru_cache

import msgspec

from domains.model.families.sign import Shape, Tensors

SUFFIX = re.compile(
    r"[._](?P<what>lora_down|lora_up|lora_mid|lora_A|lora_B|lora\.down|lora\.up|lora_linear_layer\.down|"
    r"lora_linear_layer\.up|lora1\.down|lora1\.up|lora2\.down|lora2\.up|dora_scale|lora_magnitude_vector|"
    r"hada_[wt][12](?:_[ab])?|lokr_[wt][12](?:_[ab])?|diff|diff_b|alpha|w_norm|b_norm)(?:\.default)?(?:\.weight)?$"
)
_MAX_SUFFIX = 48
"""No suffix is longer, so the search reads only this many characters at the end."""
_LAST_WORDS = frozenset(
    ("lora_down", "lora_up", "lora_mid", "lora_A", "lora_B", "dora_scale", "lora_magnitude_vector", "alpha", "diff")
)
"""Suffixes behind the last dot of nearly all tensors: they need no search."""
_KNOWN_STEMS = 4096
"""Adapters for one base change the same layers."""
_FORMATS = (
    ("kohya", ("lora_unet_", "lora_te", "lora_transformer_", "lycoris_")),
    ("comfyui", ("diffusion_model.", "text_encoders.")),
    ("diffusers", ("unet.", "transformer.", "text_encoder", "base_model.model.", "te1.", "te2.")),
)
_INNER = re.compile(
    r"^(?:lora_unet_|lora_transformer_|lycoris_(?:unet_)?|base_model_model_|unet_|transformer_(?!blocks)|diffusion_model_)+"
)
_TEXT = re.compile(r"^(?:lora_te\d?_|text_encoders?_|te[123]_)")
_ENCODER = re.compile(r"lora_te\d?|text_encoder_\d")
_ALGORITHMS = (
    ("dora", ("dora_scale", "lora_magnitude_vector")),
    ("loha", ("hada_",)),
    ("lokr", ("lokr_",)),
    ("lora", ("lora",)),
    ("difference", ("diff", "diff_b")),
)


class Module(msgspec.Struct, frozen=True, kw_only=True):
    """One layer of the base model that an adapter changes."""

    name: str
    """Its path with `_` between the parts, without the prefix of the format."""
    of_text: bool
    """Whether it belongs to a text encoder."""
    inputs: int
    """Number of features that the layer reads. 0: the tensors do not tell."""
    convolution: bool
    """Whether it is a convolution with a kernel larger than one pixel."""


class Adapter(msgspec.Struct, frozen=True, kw_only=True):
    """The names of an adapter, read."""

    format: str
    """`kohya`, `diffusers`, `comfyui`; `other`: none of these prefixes."""
    algorithm: str
    """`lora`, `locon`, `loha`, `lokr`, `dora`, `difference`."""
    modules: tuple[Module, ...]
    ranks: tuple[int, ...]
    """The different ranks, smallest first. Empty: the algorithm has none, or the tensors do not tell."""
    matched: tuple[str, ...]
    """Tensors whose names were understood."""
    unexpected: tuple[str, ...]
    encoders: tuple[str, ...]
    """Prefixes of text encoders: `lora_te1`."""


def read(tensors: Tensors) -> Adapter | None:
    """The adapter. None: no tensor is named as one of an adapter, or fewer than half."""
    parts: dict[str, dict[str, Shape]] = {}
    matched, unexpected = list[str](), list[str]()
    for name, shape in tensors.items():
        stem, what = _split(name)
        if what:
            parts.setdefault(stem, {})[what] = shape
            matched.append(name)
        else:
            unexpected.append(name)
    modules = {stem: of for stem, of in parts.items() if set(of) - {"alpha"}}
    if not modules or len(matched) < len(unexpected):
        return None
    read_modules = tuple(_module(stem, of) for stem, of in modules.items())
    return Adapter(
        format=_format(modules),
        algorithm=_algorithm(modules, read_modules),
        modules=read_modules,
        ranks=tuple(sorted({rank for of in modules.values() if (rank := _rank(of))})),
        matched=tuple(matched),
        unexpected=tuple(unexpected),
        encoders=tuple(sorted({found[0] for stem in modules if (found := _ENCODER.match(stem))})),
    )


def _split(name: str) -> tuple[str, str]:
    """The layer and the part of it that a tensor is. An empty part: its name is none of an adapter's."""
    stem, dot, what = name.removesuffix(".weight").removesuffix(".default").rpartition(".")
    if dot and what in _LAST_WORDS:
        return stem, what
    found = SUFFIX.search(name, max(0, len(name) - _MAX_SUFFIX))
    return (name[: found.start()], found["what"]) if found else (name, "")


def _format(modules: Mapping[str, Mapping[str, Shape]]) -> str:
    first = next(iter(modules))
    return next((name for name, starts in _FORMATS if first.startswith(starts)), "other")


def _algorithm(modules: Mapping[str, Mapping[str, Shape]], read_modules: tuple[Module, ...]) -> str:
    kinds = {what for of in modules.values() for what in of}
    name = next((name for name, starts in _ALGORITHMS if any(kind.startswith(starts) for kind in kinds)), "difference")
    return "locon" if name == "lora" and any(module.convolution for module in read_modules) else name


def _module(stem: str, of: Mapping[str, Shape]) -> Module:
    inner, of_text = _layer(stem)
    down = _down(of)
    return Module(name=inner, of_text=of_text, inputs=_inputs(of), convolution=len(down) == 4 and down[2:] != (1, 1))


@lru_cache(_KNOWN_STEMS)
def _layer(stem: str) -> tuple[str, bool]:
    """The name of a layer without the prefix of its format, and whether it belongs to a text encoder."""
    flat = stem.replace(".", "_").replace("_processor_", "_")
    text = _TEXT.match(flat)
    start = text or _INNER.match(flat)
    return flat[start.end() :] if start else flat, text is not None


_DOWN = ("lora_down", "lora_A", "lora.down", "lora_linear_layer.down", "lora1.down", "lora2.down")


def _down(of: Mapping[str, Shape]) -> Shape:
    for what in _DOWN:
        if what in of:
            return of[what]
    return ()


def _inputs(of: Mapping[str, Shape]) -> int:
    down = _down(of) or of.get("hada_w1_b", ()) or of.get("diff", ())
    if len(down) > 1:
        return down[1]
    # A Kronecker product reads as many features as both factors together.
    first, second = of.get("lokr_w1") or of.get("lokr_w1_b", ()), of.get("lokr_w2") or of.get("lokr_w2_b", ())
    return first[1] * second[1] if len(first) > 1 and len(second) > 1 else 0


def _rank(of: Mapping[str, Shape]) -> int:
    down = _down(of) or of.get("hada_w1_b", ()) or of.get("lokr_w2_b", ())
    return down[0] if down else 0
