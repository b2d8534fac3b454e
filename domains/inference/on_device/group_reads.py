"""What the rows of a group of jobs read beside their prompts in each layer of attention, in one forward."""

from collections.abc import Sequence
from typing import NamedTuple, overload

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
    """What is read in one step. Steps with the same image prompts share it, unless these follow the time."""

    def __init__(self, readers: Sequence[Reader], layout: Rows) -> None:
        """`readers`: guided ones first, as the rows stand."""
        self._of = [reader.prompts for reader in readers]
        count = next(count for reader in readers for count in _counts(reader))
        timed = any(prompt.timed for reader in readers for prompt in reader.prompts)
        layers = _Layers(readers, layout, count)
        self.layers: Sequence[Sequence[Beside]] = layers if timed else [*layers]
        """For each layer that reads something, in the order in which the denoiser computes them."""

    def of_these(self, prompts: Sequence[Sequence[JobImagePrompt]]) -> bool:
        """Whether it was made for these."""
        return self._of == prompts


class _Layers(Sequence[Sequence[Beside]]):
    """What is read in each layer, made when it is asked for: what follows the time of a step is large, and read once."""

    def __init__(self, readers: Sequence[Reader], layout: Rows, count: int) -> None:
        self._readers, self._layout, self._count = readers, layout, count

    def __len__(self) -> int:
        return self._count

    @overload
    def __getitem__(self, index: int) -> Sequence[Beside]: ...

    @overload
    def __getitem__(self, index: slice) -> Sequence[Sequence[Beside]]: ...

    def __getitem__(self, index: int | slice) -> Sequence[Beside] | Sequence[Sequence[Beside]]:
        if isinstance(index, slice):
            return [self[place] for place in range(*index.indices(self._count))]
        if not 0 <= index < self._count:
            raise IndexError(index)
        return [
            beside
            for reader in self._readers
            for beside in _of_reader(reader, index, self._layout.of(reader.pictures, guided=reader.guided))
        ]


def _counts(reader: Reader) -> list[int]:
    """Number of layers, told by each thing that is read."""
    regions = [] if reader.regions is None else [len(keys) for keys in reader.regions.keys]
    return [*(len(prompt.weights) for prompt in reader.prompts), *regions]


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
    weight, area, keys = prompt.weights[layer], prompt.area, prompt.keys[layer]
    norms = prompt.norms[layer] if prompt.norms else None
    return [
        Beside(place, *_repeated(keys, row, place), weight=weight, area=area, norms=norms)
        for row, place in _rows(places)
    ]


def _repeated(keys: KeysValues, row: int, place: slice) -> KeysValues:
    """One row of keys and values for as many rows as the place has. They take no more memory."""
    pictures = place.stop - place.start
    key, value = (one[min(row, len(one) - 1)].expand(pictures, *one.shape[1:]) for one in keys)
    return key, value
