"""The repeated layers of denoisers and text encoders, and which of them stay on a device that has no memory for all.

The others are streamed: two places on the device are filled in turn, one with the next layer while the other one computes.
The server forecasts with the same plan that the worker carries out.
"""

import re
from collections.abc import Mapping

import msgspec

Layer = tuple[int, ...]
"""Sorts the layers of a component in the order in which they compute."""

MOST_LAYERS = 256
"""A component with more is not streamed: plans take time as the square of the layers. Networks have about 100 at most."""
_LISTS = (
    "noise_refiner",
    "context_refiner",
    "joint_blocks",
    "double_blocks",
    "joint_transformer_blocks",
    "transformer_blocks",
    "single_blocks",
    "single_transformer_blocks",
    "layers",
)
"""The lists of transformers in the order in which they compute: names of diffusers and of single files."""
_OF_LIST = re.compile(rf"({'|'.join(_LISTS)})\.(\d+)\.")
_LEVELS = {"down_blocks": 0, "mid_block": 1, "up_blocks": 2}
_OF_UNET = re.compile(
    r"(down_blocks|mid_block|up_blocks)\.(?:(\d+)\.)?(?:resnets\.(\d+)|attentions\.(\d+)\.transformer_blocks\.(\d+))\.(?!time_emb)"
)
_PARTS = {"input_blocks": 0, "middle_block": 1, "output_blocks": 2}
_OF_OLD_UNET = re.compile(
    r"(input_blocks|middle_block|output_blocks)\.(\d+)\.(?:(\d+)\.)?"
    r"(?:transformer_blocks\.(\d+)\.|(?:in_layers|out_layers|skip_connection)\.)"
)
"""A single file's names. What projects the time (`emb_layers`) is computed at once for all layers, and is in none."""


_OF_TEXT = re.compile(r"(?:\w+\.)*?(?:layers|block|resblocks)\.(\d+)\.")
"""A text encoder has one list: CLIP's and Qwen's `layers`, T5's `block`, OpenCLIP's `resblocks`."""
_TEXTS = "text_encoder"
"""Beginning of the component ids of text encoders."""


def layer_of(name: str, component: str = "") -> Layer | None:
    """The layer that a tensor belongs to, by its name without a prefix. None: it belongs to none.

    `component`: its id; empty: a denoiser.
    """
    if component.startswith(_TEXTS):
        return (int(found[1]),) if (found := _OF_TEXT.match(name)) else None
    if found := _OF_LIST.match(name):
        return _LISTS.index(found[1]), int(found[2])
    if found := _OF_UNET.match(name):
        level, number, resnet, attention, block = found.groups()
        # Of a level with attention, each resnet is followed by a transformer.
        place = (int(resnet), 0, 0) if attention is None else (int(attention), 1, int(block))
        return (_LEVELS[level], int(number or 0), *place)
    if found := _OF_OLD_UNET.match(name):
        part, first, second, block = found.groups()
        return _PARTS[part], int(first), int(second or 0), int(block or 0)
    return None


def module_of(name: str, component: str = "") -> str:
    """The path of the layer's module, for a name in a module. Empty: the tensor belongs to no layer."""
    text = component.startswith(_TEXTS)
    found = _OF_TEXT.match(name) if text else _OF_LIST.match(name) or _OF_UNET.match(name)
    return found[0].removesuffix(".") if found else ""


class LayerPlan(msgspec.Struct, frozen=True, kw_only=True):
    """Which layers are streamed."""

    layers: tuple[Layer, ...] = ()
    """All, in the order in which they compute."""
    streamed: tuple[Layer, ...] = ()
    """Those that are streamed, in the same order. An even number: the first follows the last into the other place."""
    places: tuple[int, int] = (0, 0)
    """Bytes of the two places that they take in turn."""
    resident_bytes: int
    """Bytes of all that stays."""

    @property
    def total_bytes(self) -> int:
        """Bytes on the device."""
        return self.resident_bytes + sum(self.places)


class LayerSizes(msgspec.Struct, frozen=True, kw_only=True):
    """How a component's size is spread over its layers: bytes, or numbers of weights."""

    of_layer: Mapping[Layer, int]
    """By layer, in the order in which they compute. Empty for more than `MOST_LAYERS`."""
    rest: int
    """What is in none."""

    def times(self, width: int) -> "LayerSizes":
        """Bytes, for weights of so many bytes each."""
        return LayerSizes(
            of_layer={layer: size * width for layer, size in self.of_layer.items()}, rest=self.rest * width
        )


def layer_sizes(sizes: Mapping[str, int], component: str = "") -> LayerSizes:
    """The sizes by layer. `sizes`: by tensor, by their names without a prefix. `component`: see `layer_of`."""
    of_layer: dict[Layer, int] = {}
    rest = 0
    for name, size in sizes.items():
        if (layer := layer_of(name, component)) is None:
            rest += size
        else:
            of_layer[layer] = of_layer.get(layer, 0) + size
    if len(of_layer) > MOST_LAYERS:
        return LayerSizes(of_layer={}, rest=rest + sum(of_layer.values()))
    return LayerSizes(of_layer={layer: of_layer[layer] for layer in sorted(of_layer)}, rest=rest)


def layer_plans(sizes: Mapping[str, LayerSizes], budget_bytes: int) -> Mapping[str, LayerPlan]:
    """The plans of components that take turns, each of which has at most the budget in its turn if its layers allow that.

    Text encoders share a turn, so they share the budget: the smaller one keeps its layers first. `sizes`: by component, in
    bytes.
    """
    whole = {one: own.rest + sum(own.of_layer.values()) for one, own in sizes.items()}
    texts = sorted((one for one in sizes if one.startswith(_TEXTS)), key=lambda one: (whole[one], one))
    plans = {one: layer_plan(own, budget_bytes) for one, own in sizes.items() if one not in texts}
    least = {one: layer_plan(sizes[one], 0).total_bytes for one in texts}
    room = budget_bytes
    for place, one in enumerate(texts):
        plans[one] = layer_plan(sizes[one], room - sum(least[other] for other in texts[place + 1 :]))
        room -= plans[one].total_bytes
    return plans


def layer_plan(sizes: LayerSizes, budget_bytes: int) -> LayerPlan:
    """The plan that streams as few layers as a budget permits; where it permits none, the plan of the fewest bytes.

    `sizes`: of the component's tensors on the device, in bytes.
    """
    least: LayerPlan | None = None
    for count in range(0, len(sizes.of_layer) + 1, 2):
        plan = _streaming(sizes, count)
        if plan.total_bytes <= budget_bytes:
            return plan
        least = plan if least is None or plan.total_bytes < least.total_bytes else least
    assert least is not None, "zero streamed layers are a plan"
    return least


def _streaming(sizes: LayerSizes, count: int) -> LayerPlan:
    """The plan with so many streamed layers, spread over the walk: each is copied while those before it compute."""
    layers = tuple(sizes.of_layer)
    total = len(layers)
    streamed = tuple(layer for at, layer in enumerate(layers) if (at + 1) * count // total > at * count // total)
    places = [max((sizes.of_layer[one] for one in streamed[first::2]), default=0) for first in (0, 1)]
    stays = sum(sizes.of_layer.values()) - sum(sizes.of_layer[one] for one in streamed)
    return LayerPlan(layers=layers, streamed=streamed, places=(places[0], places[1]), resident_bytes=sizes.rest + stays)
