"""Converts LoRAs and textual inversions to and from messages."""

from collections.abc import Sequence

from deviceops.inference.v1 import conditioning_pb2, resolved_generation_pb2
from domains.inference.generation import ResolvedGeneration
from domains.inference.loras import Lora, LoraComponent, ResolvedLora
from domains.inference.textual_inversions import ResolvedTextualInversion, TextualInversion


def from_lora(message: conditioning_pb2.LoraInput) -> Lora:
    """The LoRA of a request."""
    return Lora(
        model_id=message.model_id,
        weight=message.weight if message.HasField("weight") else None,
        components=tuple(
            LoraComponent(
                component_id=one.component_id,
                weight=one.weight if one.HasField("weight") else None,
                block_weights=tuple(one.block_weights),
            )
            for one in message.component_weights
        ),
        start_ratio=message.start_ratio if message.HasField("start_ratio") else None,
        end_ratio=message.end_ratio if message.HasField("end_ratio") else None,
    )


def to_lora(lora: Lora | ResolvedLora) -> conditioning_pb2.LoraInput:
    """The message of a LoRA, as the caller asked for it or with every choice made."""
    weights = [
        conditioning_pb2.LoraComponentWeight(
            component_id=one.component_id, weight=one.weight, block_weights=one.block_weights
        )
        for one in lora.components
    ]
    return conditioning_pb2.LoraInput(
        model_id=lora.model_id,
        weight=lora.weight,
        component_weights=weights,
        start_ratio=lora.start_ratio,
        end_ratio=lora.end_ratio,
    )


def from_word(message: conditioning_pb2.TextualInversionInput) -> TextualInversion:
    """The textual inversion of a request."""
    return TextualInversion(
        model_id=message.model_id,
        token=message.token,
        weight=message.weight if message.HasField("weight") else None,
    )


def to_word(word: TextualInversion | ResolvedTextualInversion) -> conditioning_pb2.TextualInversionInput:
    """The message of a textual inversion, as the caller asked for it or with every choice made."""
    return conditioning_pb2.TextualInversionInput(model_id=word.model_id, token=word.token, weight=word.weight)


def used_adapters(resolved: ResolvedGeneration) -> Sequence[resolved_generation_pb2.UsedModel]:
    """The LoRAs and textual inversions that took part."""
    named = {"lora": resolved.all_loras, "textual_inversion": resolved.textual_inversions}
    return [
        resolved_generation_pb2.UsedModel(role=role, model_id=one.model_id, sha256=one.model_sha256)
        for role, some in named.items()
        for one in some
    ]
