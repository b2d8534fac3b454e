"""Makes the adapters of one job: the difference of each layer in each range of steps, on the device."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import nn

from domains.inference.given import Given
from domains.inference.lora_blocks import Blocks, block_of, blocks_of
from domains.inference.loras import ResolvedLora
from domains.inference.on_device.adapters.beside import Adapters, Delta, Phase
from domains.inference.on_device.adapters.factors import Factors, LowRank, Magnitudes, joined, magnitudes
from domains.inference.on_device.adapters.learned_words import LearnedWords
from domains.inference.on_device.adapters.lora_fit import Fitted
from domains.inference.step_range import own_part
from domains.inference.textual_inversions import ResolvedTextualInversion
from domains.model.model import Model
from domains.model.on_device import OnDeviceModel

_ENCODERS = ("text_encoder", "text_encoder_2", "text_encoder_3")


class Asked(NamedTuple):
    """The adapters of a job, each with its entry in the catalogue."""

    loras: Sequence[tuple[ResolvedLora, Model]] = ()
    words: Sequence[tuple[ResolvedTextualInversion, Model]] = ()
    steps: int = 1
    """Number of steps that the pass computes."""
    place: tuple[int, int] | None = None
    """See `ResolvedGeneration.place`. None: the pass computes the whole walk."""


class Chosen(NamedTuple):
    """A LoRA of a job, fitted to its model."""

    lora: ResolvedLora
    fitted: Sequence[Fitted]


def asked_of(given: Given) -> Asked:
    """The adapters of a generation."""
    resolved = given.resolved
    return Asked(
        loras=[*zip(resolved.loras, given.loras, strict=True)],
        words=[*zip(resolved.textual_inversions, given.words, strict=True)],
        steps=resolved.computed_steps,
        place=resolved.place,
    )


def adapters_of(
    chosen: Sequence[Chosen], asked: Asked, words: Mapping[nn.Module, LearnedWords], loaded: OnDeviceModel
) -> Adapters:
    """The adapters with their phases: from which step on which differences count."""
    ranges = _by_range(chosen, asked, loaded)
    begins = sorted({0, *(edge for steps in ranges for edge in (steps.start, steps.stop) if edge < asked.steps)})
    # The UNet keeps each row in its place; other denoisers flatten them.
    by_rows = "unet" in loaded.modules
    first, *later = [_layers(ranges, begin) for begin in begins]
    return Adapters(
        layers=first,
        of_texts=_of_texts(chosen, asked),
        words=words,
        by_rows=by_rows,
        later=[
            Phase(begin, Adapters(layers=layers, by_rows=by_rows))
            for begin, layers in zip(begins[1:], later, strict=True)
        ],
    )


def _by_range(
    chosen: Sequence[Chosen], asked: Asked, loaded: OnDeviceModel
) -> Mapping[range, Mapping[nn.Module, Delta]]:
    """The differences by the steps in which they count. Text encoders are changed in all steps."""
    parts: defaultdict[range, defaultdict[tuple[str, str], list[tuple[Fitted, float]]]]
    parts = defaultdict(lambda: defaultdict(list))
    begin, whole = asked.place or (0, asked.steps)
    for lora, fitted in chosen:
        blocks = {name: _blocks(loaded, name) for name in loaded.modules if lora.has_blocks(name)}
        for one in fitted:
            component, path = one.layer
            if weight := lora.weight_of(component, block_of(path, blocks.get(component, ()))):
                within = range(asked.steps) if _is_text(one) else own_part(lora.steps_of(whole), begin, asked.steps)
                parts[within][one.layer].append((one, weight))
    return {within: _deltas(layers, loaded) for within, layers in parts.items()}


def _blocks(loaded: OnDeviceModel, component: str) -> Blocks:
    config: Any = loaded.modules[component].config
    return blocks_of(loaded.family, component, config if isinstance(config, Mapping) else config.to_dict())


def _deltas(
    parts: Mapping[tuple[str, str], Sequence[tuple[Fitted, float]]], loaded: OnDeviceModel
) -> Mapping[nn.Module, Delta]:
    found: dict[nn.Module, Delta] = {}
    for place, some in sorted(parts.items(), key=lambda item: item[0][0]):
        layer = loaded.modules[place[0]].get_submodule(place[1])
        if any(fitted.lengths is not None for fitted, _ in some):
            # The length of a row is that of the base's row with the difference.
            loaded.bring(*place)
        found[layer] = _delta(layer, some, loaded.device)
    return found


def _layers(ranges: Mapping[range, Mapping[nn.Module, Delta]], step: int) -> Mapping[nn.Module, Sequence[Delta]]:
    """What counts in a step."""
    found: defaultdict[nn.Module, list[Delta]] = defaultdict(list)
    for steps, deltas in ranges.items():
        for layer, delta in deltas.items() if step in steps else ():
            found[layer].append(delta)
    return found


def _delta(layer: nn.Module, parts: Sequence[tuple[Fitted, float]], place: torch.device) -> Delta:
    weight: torch.Tensor = layer.weight  # pyright: ignore[reportAssignmentType]  # a linear layer or a convolution
    low_rank: list[LowRank] = []
    others: list[Factors] = []
    lengthened: list[Magnitudes] = []
    for fitted, strength in parts:
        dtype = weight.dtype if fitted.lengths is None else torch.float32
        factors = fitted.factors.scaled(fitted.scale * strength, place, dtype)
        if fitted.lengths is not None:
            placed = fitted.factors.scaled(fitted.scale * strength, place, weight.dtype)
            lengthened.append(magnitudes(factors, placed, fitted.lengths, layer))
        elif isinstance(factors, LowRank):
            low_rank.append(factors)
        else:
            others.append(factors)
    return Delta(low_rank=joined(low_rank) if low_rank else None, others=others, magnitudes=lengthened)


def _is_text(one: Fitted) -> bool:
    return one.layer.component in _ENCODERS


def _of_texts(chosen: Sequence[Chosen], asked: Asked) -> str:
    """See `Adapters.of_texts`: the LoRAs and words that change text encoders, with their weights. Empty: none."""
    weights = [
        (lora.model_sha256, lora.weight, [one for one in lora.components if one.component_id in _ENCODERS])
        for lora, fitted in chosen
        if any(_is_text(one) and lora.weight_of(one.layer.component) for one in fitted)
    ]
    words = [(word.model_sha256, word.token, word.weight) for word, _ in asked.words]
    return repr((sorted(weights, key=repr), words)) if weights or words else ""
