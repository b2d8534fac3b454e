"""Noise that depends on the seed and on nothing else: one CPU generator a picture."""

from collections.abc import Sequence

import torch
from torch import Tensor


class Noise:
    """Standard normal noise for a job's pictures: the same for a seed whatever the device and the neighbours."""

    def __init__(self, seeds: Sequence[int], shape: tuple[int, int, int], device: torch.device) -> None:
        self._generators = [torch.Generator().manual_seed(seed) for seed in seeds]
        self._shape = shape
        self._device = device

    def draw(self) -> Tensor:
        """(pictures, *shape), float32, on the device. Each call goes on where the last one ended."""
        drawn = torch.empty((len(self._generators), *self._shape), pin_memory=self._device.type == "cuda")
        for row, generator in zip(drawn, self._generators, strict=True):
            row.normal_(generator=generator)
        return drawn.to(self._device, non_blocking=True)
