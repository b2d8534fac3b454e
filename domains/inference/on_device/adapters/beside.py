"""Adds what a job's adapters contribute to the outputs of the layers, beside the layers' own weights.

A forward runs within `beside`. Layers that are called as modules have a hook for it; code that reads a layer's weight and
computes by itself calls `add_beside` with the layer's input and output. Rows of several jobs can share a forward.
"""

from collections.abc import Collection, Generator, Hashable, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol
from weakref import WeakSet

from torch import Tensor, nn

from domains.inference.on_device.adapters.factors import Factors, LowRank, Magnitudes
from domains.inference.on_device.adapters.learned_words import LearnedWords
from domains.inference.on_device.areas import Area


@dataclass(frozen=True, kw_only=True, eq=False)
class Delta:
    """What one job adds to the output of one layer."""

    low_rank: LowRank | None
    others: Sequence[Factors] = ()
    magnitudes: Sequence[Magnitudes] = ()
    area: Area | None = None
    """Where in the picture it counts. None: everywhere."""

    def of(self, layer: nn.Module, x: Tensor, base: Tensor) -> Tensor:
        """The contribution for the layer's input and its own output."""
        parts = [part.product(layer, x) for part in (self.low_rank, *self.others) if part is not None]
        parts += [part.product(layer, x, base) for part in self.magnitudes]
        whole = parts[0]
        for part in parts[1:]:
            whole = whole + part
        return whole

    def tensors(self) -> Sequence[Tensor]:
        """The device tensors that it holds."""
        held = (self.low_rank, *self.others, *self.magnitudes, self.area)
        return [tensor for part in held if part is not None for tensor in part.tensors()]


@dataclass(frozen=True, kw_only=True, eq=False)
class Adapters:
    """All adapters of one job, fitted to its model."""

    layers: Mapping[nn.Module, Sequence[Delta]] = field(default_factory=dict[nn.Module, Sequence[Delta]])
    """What counts from the first step on."""

    of_texts: str = ""
    """Names what changes the text encoders: equal for jobs whose prompts are encoded alike. Empty: nothing does."""

    words: Mapping[nn.Module, LearnedWords] = field(default_factory=dict[nn.Module, LearnedWords])
    """By the token embedding of a text encoder: the words that it reads beside those of its vocabulary."""

    by_rows: bool = False
    """Whether they can count in some rows of a forward alone."""

    later: "Phases | None" = None
    """What counts instead from later steps on. Text encoders read what counts first. None: nothing changes."""

    regions: Mapping[int, "Adapters"] = field(default_factory=dict[int, "Adapters"])
    """By the place of a region that has LoRAs of its own: all that counts where its prompts are read."""

    def at(self, step: int) -> "Adapters":
        """What counts in a step, counted from 0. The same object for all steps of a phase."""
        return self if self.later is None else self.later.at(step) or self

    def of_region(self, place: int) -> "Adapters":
        """What counts where the prompts of a region are read."""
        return self.regions.get(place, self)

    @property
    def alike(self) -> Hashable:
        """Equal for jobs that can share a forward."""
        return None if self.by_rows or not self.layers else id(self)

    def modules(self) -> Sequence[nn.Module]:
        """The layers that change in some step, each once."""
        here = [*self.layers, *(layer for one in self.regions.values() for layer in one.layers)]
        return list(dict.fromkeys([*here, *([] if self.later is None else self.later.modules())]))

    def tensors(self) -> Sequence[Tensor]:
        """The device tensors that they hold for all steps."""
        words = [words.vectors for words in self.words.values()]
        if self.later is not None:
            return [*self.later.tensors(), *words]
        deltas = {
            delta: None for one in (self, *self.regions.values()) for some in one.layers.values() for delta in some
        }
        return [*(tensor for delta in deltas for tensor in delta.tensors()), *words]


class Phases(Protocol):
    """The parts of a job's steps in which different adapters count. Each is made when it begins: there are as many as ranges
    of steps, and all at once would have each adapter as often."""

    def at(self, step: int) -> Adapters | None:
        """What counts in a step, counted from 0. The same object for all steps of a phase. None: what counts first."""
        ...

    def modules(self) -> Collection[nn.Module]:
        """The layers that change in some step."""
        ...

    def tensors(self) -> Sequence[Tensor]:
        """The device tensors that the adapters of all steps hold."""
        ...


NO_ADAPTERS = Adapters()


Rows = Mapping[int, Sequence[slice]] | None
"""A job's rows by the number of a tensor's rows, since some tensors have only one row a picture. None: all rows."""


class Share(NamedTuple):
    """The adapters of some rows of a forward."""

    adapters: Adapters
    rows: Rows = None


class _Present:
    """The shares of the forward that runs now. Forwards run on one thread."""

    def __init__(self) -> None:
        self.of: Mapping[nn.Module, Sequence[tuple[Delta, Rows]]] = {}
        self.words: Mapping[nn.Module, LearnedWords] = {}
        self.latents: tuple[int, int] = (0, 0)


_present = _Present()
_hooked: WeakSet[nn.Module] = WeakSet()


@contextmanager
def beside(shares: Sequence[Share], latents: tuple[int, int] = (0, 0)) -> Generator[None]:
    """Apply these adapters to forwards within the context. `latents`: (h, w) of those that a U-Net reads."""
    before = _present.of, _present.words, _present.latents
    _present.latents = latents
    _present.of = _by_layer(shares)
    _present.words = {place: words for adapters, _ in shares for place, words in adapters.words.items()}
    try:
        yield
    finally:
        _present.of, _present.words, _present.latents = before


def _by_layer(shares: Sequence[Share]) -> Mapping[nn.Module, Sequence[tuple[Delta, Rows]]]:
    found: dict[nn.Module, list[tuple[Delta, Rows]]] = {}
    for adapters, rows in shares:
        for layer, deltas in adapters.layers.items():
            found.setdefault(layer, []).extend((delta, rows) for delta in deltas)
    return found


def add_beside(layer: nn.Module, x: Tensor, output: Tensor) -> Tensor:
    """Add what the present adapters contribute to a layer's own output, in place. Returns it."""
    for delta, rows in _present.of.get(layer, ()):
        for own in (slice(None),) if rows is None else rows[x.shape[0]]:
            part = output[own]
            more = delta.of(layer, x[own], part)
            part += more if delta.area is None else more * delta.area.over(more, _present.latents)
    return output


def words_of(embedding: nn.Module) -> LearnedWords | None:
    """The learned words that a text encoder's token embedding reads now. None: its vocabulary alone."""
    return _present.words.get(embedding)


def hook(layers: Sequence[nn.Module]) -> None:
    """Have calls of these modules count the present adapters. Once a module: without adapters the hook does nothing."""
    for layer in layers:
        if layer not in _hooked:
            _hooked.add(layer)
            layer.register_forward_hook(_after)


def _after(layer: nn.Module, arguments: Any, output: Tensor) -> Tensor:
    """A forward hook of torch's."""
    return add_beside(layer, arguments[0], output)
