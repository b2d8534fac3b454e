"""Noise that depends on the seed only: one CPU generator a picture.

Torch's CPU generator (MT19937) reads 32 bits of its seed: 7 and 7 + 2³² would give one picture. A seed below 2³² is
passed on, so that pictures equal those of other software; a larger one fills the generator's state from all 63 bits.
"""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from domains.inference.seed_variation import ResolvedSeedVariation

_SAME = 0.9995
"""Mean cosine of noises that are taken for the same, whose angle is too small to divide by its sine."""
_BITS_READ = 32
"""Bits of a seed that torch's own seeding reads."""
_STATE_AT, _STATE_WORDS = 24, 624
"""Where the generator's words lie in the bytes of `get_state`: after the initial seed (8), left (4), seeded (4), next (8).
Each takes 8 bytes (ATen/core/CPUGeneratorImpl.cpp, CPUGeneratorImplStateLegacy)."""


def generator_of(seed: int) -> torch.Generator:
    """A CPU generator for a seed of 63 bits; equal to torch's own for a seed below 2³²."""
    generator = torch.Generator().manual_seed(seed)
    low, high = seed % 2**_BITS_READ, seed >> _BITS_READ
    if high:
        generator.set_state(_filled(generator.get_state(), low, high))
    return generator


def _filled(state: Tensor, low: int, high: int) -> Tensor:
    """The state with MT19937's words from both halves: `init_by_array` (Matsumoto, mt19937ar), which numpy keeps stable."""
    words = np.random.RandomState([low, high]).get_state(legacy=False)["state"]["key"]
    into = state.numpy()[_STATE_AT : _STATE_AT + 8 * _STATE_WORDS].view(np.uint64)
    into[:] = words
    return state


def moved(first: Tensor, other: Tensor, strength: float) -> Tensor:
    """Noise between two noises (channels, h, w): spherical interpolation of each column, as A1111's variation seed does."""
    if strength in (0.0, 1.0):
        return other if strength else first
    unit_first, unit_other = (one / torch.norm(one, dim=1, keepdim=True) for one in (first, other))
    cosine = (unit_first * unit_other).sum(1)
    if float(cosine.mean()) > _SAME:
        return torch.lerp(first, other, strength)
    angle = torch.acos(cosine)
    shares = (torch.sin(part * angle) / torch.sin(angle) for part in (1 - strength, strength))
    return sum((share.unsqueeze(1) * one for share, one in zip(shares, (first, other), strict=True)), torch.zeros(()))


class Noise:
    """Standard normal noise for a job's pictures: the same for a seed on any device and beside any other job."""

    def __init__(
        self,
        seeds: Sequence[int],
        shape: tuple[int, int, int],
        device: torch.device,
        variation: ResolvedSeedVariation | None = None,
        varied: int = 0,
    ) -> None:
        """`variation`: moves the noise of draw number `varied`, from 0, which the walk begins with."""
        self._generators = [generator_of(seed) for seed in seeds]
        self._variation = variation
        self._until_varied = varied
        self._shape = shape
        self.device = device

    def kept(self) -> list[Tensor]:
        """The state of each picture's generator, on the CPU."""
        return [generator.get_state() for generator in self._generators]

    def restore(self, states: Sequence[Tensor]) -> None:
        """Continue the draws from the kept states."""
        for generator, state in zip(self._generators, states, strict=True):
            generator.set_state(state)

    @property
    def pictures(self) -> int:
        """Number of pictures."""
        return len(self._generators)

    def draw(self) -> Tensor:
        """(pictures, *shape), float32, on the device. Each call continues where the last one ended."""
        drawn = self.room(self.pictures)
        self.draw_into(drawn)
        return drawn.to(self.device, non_blocking=True)

    def room(self, pictures: int) -> Tensor:
        """(pictures, *shape), uninitialised, on the host; pinned for CUDA, so that a copy to the device need not wait."""
        return torch.empty((pictures, *self._shape), pin_memory=self.device.type == "cuda")

    def draw_into(self, drawn: Tensor) -> None:
        """Fill (pictures, *shape), float32, on the host. Each call continues where the last one ended."""
        for row, generator in zip(drawn, self._generators, strict=True):
            row.normal_(generator=generator)
        if self._variation is not None and self._until_varied == 0:
            for row, seed in zip(drawn, self._variation.seeds, strict=True):
                other = torch.empty(self._shape).normal_(generator=generator_of(seed))
                row.copy_(moved(row, other, self._variation.strength))
        self._until_varied -= 1


def draw_together(jobs: Sequence[Noise | None]) -> list[Tensor | None]:
    """The next noise of each in one copy to the device. None draws none."""
    drawing = [noise for noise in jobs if noise is not None]
    if not drawing:
        return [None] * len(jobs)
    counts = [noise.pictures for noise in drawing]
    drawn = drawing[0].room(sum(counts))
    for noise, part in zip(drawing, drawn.split(counts), strict=True):
        noise.draw_into(part)
    parts = iter(drawn.to(drawing[0].device, non_blocking=True).split(counts))
    return [None if noise is None else next(parts) for noise in jobs]
