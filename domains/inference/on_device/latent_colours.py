"""The colours of latents, without a decoder: a small polynomial fitted to the model's own VAE.

The VAE's encoder sees one picture of known colours; least squares finds the way back from the latents' values, their
squares and their products. It costs one encoding, once a model, and about 50 multiplications a latent pixel after that.
"""

import torch
from diffusers import AutoencoderKL
from torch import Tensor

_EDGE_PX = 256
_BLOCK_PX = 32


class LatentColours:
    """Latents (n, c, h, w) → pictures (n, 3, h, w) in about −1..1. Fitted on first use."""

    def __init__(self, vae: AutoencoderKL) -> None:
        self._vae = vae
        self._weights: Tensor | None = None

    def of(self, latents: Tensor) -> Tensor:
        """The colours of clean, scaled latents."""
        if self._weights is None:
            self._weights = self._fit()
        return (_features(latents) @ self._weights).permute(0, 3, 1, 2)

    def _fit(self) -> Tensor:
        """(features, 3), float32, on the VAE's device."""
        picture = _blocks().to(self._vae.device, self._vae.dtype)
        config = self._vae.config
        encoded = self._vae.encode(picture).latent_dist.mean.float()
        shift = getattr(config, "shift_factor", None) or 0.0
        features = _features((encoded - shift) * config.scaling_factor).flatten(0, 2)
        colours = torch.nn.functional.adaptive_avg_pool2d(picture.float(), encoded.shape[-2:])
        # On the CPU: a system of 1024 rows, and not every backend has lstsq.
        wanted = colours.permute(0, 2, 3, 1).flatten(0, 2).cpu()
        return torch.linalg.lstsq(features.cpu(), wanted).solution.to(features.device)


def _features(latents: Tensor) -> Tensor:
    """(n, c, h, w) → (n, h, w, 1 + c + c·(c+1)/2): one, the values, and each product of two of them."""
    values = latents.float().permute(0, 2, 3, 1)
    channels = range(values.shape[-1])
    products = [values[..., i] * values[..., j] for i in channels for j in channels if i <= j]
    return torch.cat([torch.ones_like(values[..., :1]), values, torch.stack(products, -1)], -1)


def _blocks() -> Tensor:
    """(1, 3, edge, edge): squares of random colours, always the same ones, a quarter of them grey."""
    count = _EDGE_PX // _BLOCK_PX
    generator = torch.Generator().manual_seed(0)
    colours = torch.rand(1, 3, count, count, generator=generator) * 2 - 1
    colours[:, :, ::2, ::2] = colours[:, :1, ::2, ::2]
    return colours.repeat_interleave(_BLOCK_PX, -1).repeat_interleave(_BLOCK_PX, -2)
