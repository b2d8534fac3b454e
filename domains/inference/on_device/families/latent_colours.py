"""The colours of latents, without a decoder: a small polynomial fitted to the model's own VAE.

The fit sees one picture of coloured squares through the VAE, its latents shaken a little so that they resemble what a
denoiser makes. Least squares then finds each latent pixel's colour from its values, their products, and its neighbours'
values. That costs one encoding and one decoding of 256×256, once a model, at the first preview; and 141 multiplications
a latent pixel after that. On the embedded model colours are off by 20 of 255 on average.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F  # noqa: N812 (the name torch's own documentation uses)
from torch import Tensor

_EDGE_PX = 256
_SQUARE_PX = 16
_SHAKE = 0.8
"""Standard deviation of the noise on the latents, whose own is about 1."""

Through = Callable[[Tensor], Tensor]
"""Pictures (n, 3, h, w) in −1..1 to scaled latents (n, c, h/8, w/8), or back."""


class LatentColours:
    """Scaled latents (n, c, h, w) → pictures (n, 3, h, w) in about −1..1. Fitted on first use."""

    def __init__(self, encode: Through, decode: Through, device: torch.device) -> None:
        self._encode = encode
        self._decode = decode
        self._device = device
        self._weights: Tensor | None = None

    def of(self, latents: Tensor) -> Tensor:
        """The colours of clean latents."""
        return (_features(latents) @ self.fit()).permute(0, 3, 1, 2)

    def fit(self) -> Tensor:
        """(features, 3), float32; once."""
        if self._weights is None:
            self._weights = self._fitted()
        return self._weights

    def _fitted(self) -> Tensor:
        generator = torch.Generator().manual_seed(0)
        latents = self._encode(_squares(generator).to(self._device)).float()
        latents = latents + _SHAKE * torch.randn(latents.shape, generator=generator).to(self._device)
        colours = F.adaptive_avg_pool2d(self._decode(latents).float(), (latents.shape[-2], latents.shape[-1]))
        features, wanted = _features(latents).flatten(0, 2), colours.permute(0, 2, 3, 1).flatten(0, 2)
        # On the CPU: a system of 1024 rows, and not every backend has lstsq.
        return torch.linalg.lstsq(features.cpu(), wanted.cpu()).solution.to(self._device)


def _features(latents: Tensor) -> Tensor:
    """(n, c, h, w) → (n, h, w, 1 + 9·c + c·(c+1)/2): one, the values of 3×3 pixels, and products of the middle's."""
    latents = latents.float()
    values = latents.permute(0, 2, 3, 1)
    around = F.unfold(F.pad(latents, (1, 1, 1, 1), mode="replicate"), 3)
    channels = range(values.shape[-1])
    products = [values[..., i] * values[..., j] for i in channels for j in channels if i <= j]
    near = around.unflatten(-1, latents.shape[-2:]).permute(0, 2, 3, 1)
    return torch.cat([torch.ones_like(values[..., :1]), near, torch.stack(products, -1)], -1)


def _squares(generator: torch.Generator) -> Tensor:
    """(1, 3, edge, edge): squares of random strong colours, a quarter of them grey."""
    count = _EDGE_PX // _SQUARE_PX
    colours = ((torch.rand(1, 3, count, count, generator=generator) * 2 - 1) * 1.6).clamp(-1, 1)
    colours[:, :, ::2, ::2] = colours[:, :1, ::2, ::2]
    return colours.repeat_interleave(_SQUARE_PX, -1).repeat_interleave(_SQUARE_PX, -2)
