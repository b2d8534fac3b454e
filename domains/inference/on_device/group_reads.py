"""What the rows of a group of jobs read beside their prompts in each layer of cross-attention, in one forward."""

from collections.abc import Sequence
from typing import NamedTuple

from domains.inference.on_device.cross_reads import Beside, KeysValues
from domains.inference.on_device.image_prompts import JobImagePrompt
from domains.inference.on_device.rows import Regions, Rows


class Reader(NamedTuple):
    """A job of the group."""

    pictures: slice
    """Its pictures among those of the group."""
    guided: bool
    prompts: Sequence[JobImagePrompt]
    """What guides it in this step."""
    regions: Regions | None = None
    """Parts with prompts of their own. None: there are none."""


class GroupReads:
    """What is read in one step. Steps with the same image prompts share it."""

    def __init__(self, readers: Sequence[Reader], layout: Rows) -> None:
        """`readers`: guided ones first, as the rows stand."""
        self._of = [reader.prompts for reader in readers]
        count = next(count for reader in readers for count in _counts(reader))
        self.layers: Sequence[Sequence[Beside]] = [
            [
                beside
                for reader in readers
                for beside in _of_reader(reader, layer, layout.of(reader.pictures, guided=reader.guided))
            ]
            for layer in range(count)
        ]
        """For each layer that reads the text, in the order of the U-Net's walk."""

    def of_these(self, prompts: Sequence[Sequence[JobImagePrompt]]) -> bool:
        """Whether it was made for these."""
        return self._of == prompts


def _counts(reader: Reader) -> list[int]:
    """Number of layers, told by each thing that is read."""
    regions = [] if reader.regions is None else [len(keys) for keys in reader.regions.keys]
    return [*(len(prompt.keys) for prompt in reader.prompts), *regions]


def _of_reader(reader: Reader, layer: int, places: Sequence[slice]) -> list[Beside]:
    """What a job's rows read in a layer. Regions first: they stand in the place of the prompt, pictures beside both."""
    found = [] if reader.regions is None else _of_regions(reader.regions, layer, places)
    shown = [_of_prompt(prompt, layer, places) for prompt in reader.prompts if prompt.weights[layer]]
    return [*found, *(one for some in shown for one in some)]


def _of_regions(regions: Regions, layer: int, places: Sequence[slice]) -> list[Beside]:
    return [
        Beside(
            place,
            *_repeated(keys[layer], row, place),
            area=area,
            # What the prompt gave is reduced once.
            kept=None if number else regions.kept,
        )
        for row, place in _rows(places)
        for number, (area, keys) in enumerate(zip(regions.areas, regions.keys, strict=True))
    ]


def _rows(places: Sequence[slice]) -> list[tuple[int, slice]]:
    """Which row of keys is read at each place. Steps without guidance read the row of the prompt alone."""
    return [*zip((0, 1)[-len(places) :], places, strict=True)]


def _of_prompt(prompt: JobImagePrompt, layer: int, places: Sequence[slice]) -> list[Beside]:
    """What each of a job's rows reads of pictures."""
    weight, area = prompt.weights[layer], prompt.area
    return [
        Beside(place, *_repeated(prompt.keys[layer], row, place), weight=weight, area=area)
        for row, place in _rows(places)
    ]


def _repeated(keys: KeysValues, row: int, place: slice) -> KeysValues:
    """One row of keys and values for as many rows as the place has. They take no more memory."""
    pictures = place.stop - place.start
    key, value = (one[min(row, len(one) - 1)].expand(pictures, *one.shape[1:]) for one in keys)
    return key, value
