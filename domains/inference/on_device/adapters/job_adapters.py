"""Makes the adapters of one job: the difference of each layer in each range of steps, on the device."""

from bisect import bisect_right
from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from domains.inference.given import Given
from domains.inference.lora_blocks import Blocks, block_of, blocks_of
from domains.inference.loras import ResolvedLora
from domains.inference.on_device.adapters.beside import Adapters, Delta
from domains.inference.on_device.adapters.factors import Factors, LowRank, Magnitudes, joined, magnitudes
from domains.inference.on_device.adapters.learned_words import LearnedWords
from domains.inference.on_device.adapters.lora_fit import Fitted
from domains.inference.on_device.areas import Area, shares_of
from domains.inference.step_range import own_part
from domains.inference.textual_inversions import ResolvedTextualInversion
from domains.model.model import Model
from domains.model.on_device import OnDeviceModel, weight_dtype

_ENCODERS = ("text_encoder", "text_encoder_2", "text_encoder_3")
_KEYS = (".attn2.to_k", ".attn2.to_v")
"""Ends of the names of a U-Net's layers that read prompts."""


class AskedRegion(NamedTuple):
    """A region of a job."""

    steps: range
    """The steps of the pass, from 0, in which it counts."""
    map: Tensor
    """See `region_maps`."""
    loras: Sequence[tuple[ResolvedLora, Model]]
    """Those that count in it alone."""


class Asked(NamedTuple):
    """The adapters of a job, each with its entry in the catalogue."""

    loras: Sequence[tuple[ResolvedLora, Model]] = ()
    words: Sequence[tuple[ResolvedTextualInversion, Model]] = ()
    steps: int = 1
    """Number of steps that the pass computes."""
    place: tuple[int, int] | None = None
    """See `ResolvedGeneration.place`. None: the pass computes the whole walk."""
    regions: Sequence[AskedRegion] = ()
    """All regions, if one of them has LoRAs."""


class Chosen(NamedTuple):
    """A LoRA of a job, fitted to its model."""

    lora: ResolvedLora
    fitted: Sequence[Fitted]


class ChosenRegion(NamedTuple):
    """A region with its LoRAs, fitted to the model."""

    steps: range
    map: Tensor
    chosen: Sequence[Chosen]


def asked_of(given: Given, maps: Sequence[Tensor] = ()) -> Asked:
    """The adapters of a generation. `maps`: of its regions, see `region_maps`."""
    resolved = given.resolved
    regions = zip(resolved.regions, maps, given.region_loras, strict=True) if any(given.region_loras) else ()
    return Asked(
        loras=[*zip(resolved.loras, given.loras, strict=True)],
        words=[*zip(resolved.textual_inversions, given.words, strict=True)],
        steps=resolved.computed_steps,
        place=resolved.place,
        regions=[
            AskedRegion(resolved.counted(region.steps_of), where, [*zip(region.loras, loras, strict=True)])
            for region, where, loras in regions
        ],
    )


def adapters_of(
    chosen: Sequence[Chosen],
    asked: Asked,
    words: Mapping[nn.Module, LearnedWords],
    loaded: OnDeviceModel,
    regions: Sequence[ChosenRegion] = (),
) -> Adapters:
    """The adapters with their phases: from which step on which differences count."""
    ranges = _by_range(chosen, asked, loaded)
    regional = _Regional(chosen, asked, words, loaded, regions)
    # The UNet keeps each row in its place; other denoisers flatten them.
    phases = _Phases(ranges, regional, asked.steps, by_rows="unet" in loaded.modules)
    later = phases if phases.begins else None
    return replace(phases.made(0), of_texts=_of_texts(chosen, asked), words=words, later=later)


class _Phases:
    """See `Phases`. Keeps the present one."""

    def __init__(
        self, ranges: Mapping[range, Mapping[nn.Module, Delta]], regional: "_Regional", steps: int, *, by_rows: bool
    ) -> None:
        self._ranges, self._regional, self._by_rows = ranges, regional, by_rows
        edges = {edge for some in (*ranges, *regional.ranges) for edge in (some.start, some.stop)}
        self.begins = sorted(edge for edge in edges if 0 < edge < steps)
        """The first steps of all phases but the first."""
        self._present: tuple[int, Adapters] | None = None
        """The phase that was asked for last, by its first step."""

    def made(self, begin: int) -> Adapters:
        """What counts in a step."""
        everywhere = _layers(self._ranges, begin)
        return Adapters(
            layers=self._regional.joined(everywhere, begin),
            by_rows=self._by_rows,
            regions=self._regional.of_prompts(everywhere, begin),
        )

    def at(self, step: int) -> Adapters | None:
        place = bisect_right(self.begins, step)
        if not place:
            return None
        begin = self.begins[place - 1]
        if self._present is None or self._present[0] != begin:
            self._present = begin, self.made(begin)
        return self._present[1]

    def modules(self) -> Collection[nn.Module]:
        return {layer for part in (*self._ranges.values(), *self._regional.parts) for layer in part}

    def tensors(self) -> Sequence[Tensor]:
        deltas = (delta for part in (*self._ranges.values(), *self._regional.parts) for delta in part.values())
        return [*(tensor for delta in deltas for tensor in delta.tensors()), *self._regional.tensors()]


class _Regional:
    """The LoRAs of regions.

    A layer of the U-Net adds the difference of a LoRA where its region counts, by the share of the region's prompt there.
    Layers that read prompts, and text encoders, are changed where they read the region's prompts. A layer that knows no
    place, such as those of the timestep, adds the difference by the mean share.
    """

    def __init__(
        self,
        chosen: Sequence[Chosen],
        asked: Asked,
        words: Mapping[nn.Module, LearnedWords],
        loaded: OnDeviceModel,
        regions: Sequence[ChosenRegion],
    ) -> None:
        self._regions, self._words = regions, words
        # Only a U-Net has regions; the plan refuses them for other families.
        unet = loaded.modules["unet"] if regions else nn.Module()
        self._placed = {layer for name, layer in unet.named_modules() if not name.endswith(_KEYS)}
        self._parts = [_by_range(one.chosen, asked, loaded, one.steps) for one in regions]
        self._of_texts = [_of_texts([*chosen, *one.chosen], asked) if one.chosen else "" for one in regions]
        self._areas: dict[tuple[int, ...], Mapping[int, Area]] = {}
        """By the places of the regions that count in a step: the share of each."""

    @property
    def parts(self) -> Sequence[Mapping[nn.Module, Delta]]:
        """The differences of all steps."""
        return [part for of_region in self._parts for part in of_region.values()]

    def tensors(self) -> Sequence[Tensor]:
        """The device tensors that say where they count."""
        return [tensor for areas in self._areas.values() for area in areas.values() for tensor in area.tensors()]

    @property
    def ranges(self) -> Sequence[range]:
        """Ranges of steps at whose edges something changes."""
        return [*(one.steps for one in self._regions), *(steps for part in self._parts for steps in part)]

    def joined(self, everywhere: Mapping[nn.Module, Sequence[Delta]], step: int) -> Mapping[nn.Module, Sequence[Delta]]:
        """What counts everywhere in a step, with what counts in regions."""
        found = defaultdict[nn.Module, list[Delta]](list, {layer: [*some] for layer, some in everywhere.items()})
        for place, area in self._areas_at(step).items():
            for layer, deltas in _layers(self._parts[place], step).items():
                if layer in self._placed:
                    found[layer] += [replace(delta, area=area) for delta in deltas]
        return found

    def of_prompts(self, everywhere: Mapping[nn.Module, Sequence[Delta]], step: int) -> Mapping[int, Adapters]:
        """By the place of a region with LoRAs: what counts in a step where its prompts are read."""
        found: dict[int, Adapters] = {}
        for place, (region, part) in enumerate(zip(self._regions, self._parts, strict=True)):
            # One without weight, or without a step, is never read.
            if region.chosen and region.steps:
                own = _layers(part, step)
                layers = {layer: [*everywhere.get(layer, ()), *own.get(layer, ())] for layer in {**everywhere, **own}}
                texts = self._of_texts[place]
                found[place] = Adapters(layers=layers, of_texts=texts, words=self._words, by_rows=True)
        return found

    def _areas_at(self, step: int) -> Mapping[int, Area]:
        places = tuple(place for place, one in enumerate(self._regions) if step in one.steps)
        if not places:
            return {}
        if places not in self._areas:
            shares = shares_of([self._regions[place].map for place in places])
            self._areas[places] = dict(zip(places, (Area(map=one) for one in shares.of_regions), strict=True))
        return self._areas[places]


def _by_range(
    chosen: Sequence[Chosen], asked: Asked, loaded: OnDeviceModel, region: range | None = None
) -> Mapping[range, Mapping[nn.Module, Delta]]:
    """The differences by the steps in which they count; `region`: and in which their region does. Text encoders are changed
    in all steps."""
    parts: defaultdict[range, defaultdict[tuple[str, str], list[tuple[Fitted, float]]]]
    parts = defaultdict(lambda: defaultdict(list))
    begin, whole = asked.place or (0, asked.steps)
    for lora, fitted in chosen:
        blocks = {name: _blocks(loaded, name) for name in loaded.modules if lora.has_blocks(name)}
        for one in fitted:
            component, path = one.layer
            if weight := lora.weight_of(component, block_of(path, blocks.get(component, ()))):
                own = own_part(lora.steps_of(whole), begin, asked.steps)
                within = range(asked.steps) if _is_text(one) else own if region is None else _both(own, region)
                parts[within][one.layer].append((one, weight))
    return {within: _deltas(layers, loaded) for within, layers in parts.items()}


def _both(some: range, others: range) -> range:
    return range(max(some.start, others.start), min(some.stop, others.stop))


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
    own = weight_dtype(layer)
    low_rank: list[LowRank] = []
    others: list[Factors] = []
    lengthened: list[Magnitudes] = []
    for fitted, strength in parts:
        dtype = own if fitted.lengths is None else torch.float32
        factors = fitted.factors.scaled(fitted.scale * strength, place, dtype)
        if fitted.lengths is not None:
            placed = fitted.factors.scaled(fitted.scale * strength, place, own)
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
