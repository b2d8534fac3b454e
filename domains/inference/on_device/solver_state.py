"""The tensors of a walk: latents, an anchor and what the solver remembers. A table says what happens to them."""

from collections.abc import Iterator, Mapping

import torch
from torch import Tensor

from domains.inference.solvers.line import Line, Mix, Sum

_DEPTH = 4
"""Most tensors that a line looks back at."""


class SolverState:
    """One job's tensors. With an index of the next line, they are all that a walk needs to go on."""

    def __init__(self, latents: Tensor) -> None:
        self.latents = latents
        """(pictures, channels, h/8, w/8), float32: α·clean + σ·noise."""
        self.clean: Tensor | None = None
        """The last line's estimate of the clean latents; None before the first."""
        self._anchor: Tensor | None = None
        self._kept: list[Tensor] = []
        """The newest first."""

    def follow(self, line: Line, output: Tensor, noise: Tensor | None) -> None:
        """Do what a line says with the denoiser's output; `noise` is drawn if `line.following.noise` is not 0."""
        self.clean = _mixed(line.clean, self.latents, output)
        newest = self.clean if line.kept is line.clean else _mixed(line.kept, self.latents, output)
        kept = [newest, *self._kept]
        following = _summed(line.following, self.latents, self._anchor, kept, noise)
        if line.anchor is not None:
            self._anchor = _summed(line.anchor, self.latents, self._anchor, kept, noise)
        if line.remembered:
            self._kept = kept[: _DEPTH - 1]
        self.latents = following

    def kept(self) -> dict[str, Tensor]:
        """The tensors that the next line may read, by name."""
        named = {"latents": self.latents} | {f"kept.{place}": each for place, each in enumerate(self._kept)}
        return named if self._anchor is None else named | {"anchor": self._anchor}

    def restore(self, tensors: Mapping[str, Tensor]) -> None:
        """Continue from the tensors of `kept`."""
        here = {name: tensor.to(self.latents.device) for name, tensor in tensors.items()}
        self.latents, self.clean = here["latents"], None
        self._anchor = here.get("anchor")
        self._kept = [here[f"kept.{place}"] for place in range(_DEPTH) if f"kept.{place}" in here]

    def tensors(self) -> list[Tensor]:
        """All device tensors that are held."""
        others = (self.clean, self._anchor)
        return [self.latents, *self._kept, *(tensor for tensor in others if tensor is not None)]


def _mixed(mix: Mix, latents: Tensor, output: Tensor) -> Tensor:
    mixed = _total(iter([(mix.latents, latents), (mix.output, output)]))
    # A part of the outputs of many jobs would keep all of them.
    return mixed.clone() if mixed is output and output.untyped_storage().nbytes() > output.nbytes else mixed


def _summed(weights: Sum, latents: Tensor, anchor: Tensor | None, kept: list[Tensor], noise: Tensor | None) -> Tensor:
    def terms() -> Iterator[tuple[float, Tensor | None]]:
        yield weights.latents, latents
        yield weights.anchor, anchor
        yield from zip(weights.kept, kept, strict=False)
        yield weights.noise, noise

    return _total(terms())


def _total(terms: Iterator[tuple[float, Tensor | None]]) -> Tensor:
    """Σ weight · tensor. A weight of 0 costs nothing, and one of 1 alone is the tensor itself."""
    (weight, tensor), *others = [(weight, tensor) for weight, tensor in terms if weight and tensor is not None]
    total = tensor if weight == 1 else tensor * weight
    for weight, tensor in others:
        total = torch.add(total, tensor, alpha=weight)
    return total
