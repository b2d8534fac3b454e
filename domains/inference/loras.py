"""LoRAs of a generation, as requested and with every choice made."""

import math

import msgspec

_ROUNDING = 1e-6


class LoraComponent(msgspec.Struct, frozen=True, kw_only=True):
    """The weight of a LoRA in one component."""

    component_id: str
    """`unet`, `transformer`, `text_encoder` …"""
    weight: float | None = None
    """Absent: as the LoRA's own."""
    block_weights: tuple[float, ...] = ()
    """Factors on the weight, one for each block in the order of `lora_blocks`. Empty: 1 for each."""


class Lora(msgspec.Struct, frozen=True, kw_only=True):
    """A LoRA to apply for one job, as requested."""

    model_id: str
    weight: float | None = None
    """-10..10; 0: no effect. Absent: 1."""
    components: tuple[LoraComponent, ...] = ()
    """Weights that count in one component instead of `weight`."""
    start_ratio: float | None = None
    """Share of the steps after which it begins to count, 0..1. Absent: 0. Text encoders are changed in all steps."""
    end_ratio: float | None = None
    """Share of the steps after which it stops, more than the start. Absent: 1."""


class ResolvedLora(msgspec.Struct, frozen=True, kw_only=True):
    """A LoRA with every choice made."""

    model_id: str
    model_sha256: str
    """SHA-256 of its file: a replay detects another one with the same id."""
    weight: float
    components: tuple[LoraComponent, ...] = ()
    start_ratio: float = 0.0
    """Share of the steps after which it begins to count."""
    end_ratio: float = 1.0
    """Share of the steps after which it stops."""

    def steps_of(self, count: int) -> range:
        """The steps (from 0, of `count`) in which it counts."""
        begin, end = (math.ceil(count * ratio - _ROUNDING) for ratio in (self.start_ratio, self.end_ratio))
        return range(begin, end)

    def weight_of(self, component: str, block: int | None = None) -> float:
        """The weight that counts in a component, or in one block of it. `block` None: outside of all blocks."""
        own = next((one for one in self.components if one.component_id == component), None)
        weight = self.weight if own is None or own.weight is None else own.weight
        return weight if own is None or block is None or not own.block_weights else weight * own.block_weights[block]

    def has_blocks(self, component: str) -> bool:
        """Whether the blocks of a component have weights of their own."""
        return any(one.block_weights for one in self.components if one.component_id == component)
