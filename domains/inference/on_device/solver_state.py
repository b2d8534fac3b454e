"""The tensors of a walk: latents, an anchor and what the solver remembers. A table says what happens to them."""

from collections.abc import Mapping, Sequence
from typing import cast

from torch import Tensor

from domains.inference.on_device.to_device import to_device
from domains.inference.solvers.line import Line
from domains.inference.solvers.weights import (
    ANCHOR,
    CLEAN,
    DEPTH,
    KEPT,
    LATENTS,
    NEXT,
    NEXT_ANCHOR,
    NOISE,
    OUTPUT,
    Weights,
    weights_of,
)


class SolverState:
    """One job's place in its walk, and its tensors: all that the walk needs to go on. `solver_step` moves it."""

    def __init__(self, latents: Tensor, lines: Sequence[Line]) -> None:
        self.latents = latents
        """(pictures, channels, h/8, w/8), float32: α·clean + σ·noise."""
        self.place = 0
        """Number of lines done."""
        self.clean: Tensor | None = None
        """The last line's estimate of the clean latents; None before the first."""
        self._anchor: Tensor | None = None
        self._kept: Sequence[Tensor] = ()
        """The tensors that later lines read, the newest first."""
        self._weights = weights_of(lines)

    @property
    def weights(self) -> Weights:
        """Coefficients of the next line."""
        return self._weights[self.place]

    def read(self, output: Tensor, noise: Tensor | None) -> list[Tensor]:
        """What the next line reads, in the order of its weights."""
        others = {LATENTS: self.latents, OUTPUT: output, ANCHOR: self._anchor, NOISE: noise}
        found = [self._kept[at - KEPT] if KEPT <= at < NOISE else others[at] for at in self.weights.reads]
        return cast(list[Tensor], found)

    def move(self, made: Sequence[Tensor]) -> None:
        """Go to the next line with what this one makes, in the order of its weights."""
        line = self.weights
        found = dict(zip(line.makes, made, strict=True))
        newest = [] if line.newest is None else [found[line.newest]]
        self._kept = [*newest, *self._kept][: line.remembered]
        self._anchor = self.latents if line.keeps_latents else found.get(NEXT_ANCHOR, self._anchor)
        self.latents, self.clean = found[NEXT], found[CLEAN]
        self.place += 1

    def named(self) -> dict[str, Tensor]:
        """The tensors that later lines may read, by name."""
        named = {"latents": self.latents} | {f"kept.{place}": each for place, each in enumerate(self._kept)}
        return named if self._anchor is None else named | {"anchor": self._anchor}

    def restore(self, tensors: Mapping[str, Tensor], place: int) -> None:
        """Continue from the tensors of `named`, at a place."""
        here = {name: to_device(tensor, self.latents.device) for name, tensor in tensors.items()}
        self.latents, self.clean, self.place = here["latents"], None, place
        self._anchor = here.get("anchor")
        self._kept = [here[f"kept.{back}"] for back in range(DEPTH) if f"kept.{back}" in here]

    def tensors(self) -> list[Tensor]:
        """All device tensors that are held."""
        others = (self.clean, self._anchor)
        return [self.latents, *self._kept, *(tensor for tensor in others if tensor is not None)]
