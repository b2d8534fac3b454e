"""From pictures to latents and back: the part of a family that its VAE decides."""

import copy
from collections.abc import Callable, Sequence
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from domains.inference.on_device.batches import Batches
from domains.inference.on_device.families.family import KeepOn, PictureLatents, as_pixels, from_pixels, regardless
from domains.inference.on_device.families.latent_colours import LatentColours
from domains.inference.on_device.networks.module_dtype import dtype_of
from domains.inference.on_device.networks.vae_decoder import VaeDecoder
from domains.inference.on_device.networks.vae_encoder import VaeEncoder
from domains.inference.on_device.tiles import in_tiles
from domains.inference.on_device.to_device import to_device
from domains.model.on_device import OnDeviceModel, picture_layout


class LatentCodec:
    """The half of `Family` that needs diffusers' AutoencoderKL alone, and the forwards of groups. Families inherit it."""

    def __init__(self, loaded: OnDeviceModel) -> None:
        self._vae: Any = loaded.modules["vae"]
        self._decoder = VaeDecoder(self._vae)
        self._device = loaded.device
        self._layout = picture_layout(loaded.device)
        self._colours = LatentColours(self._encoded, self._decoded, loaded.device)
        self._batches = Batches()

    @property
    def scale_px(self) -> int:
        """Edge in pixels of a latent pixel."""
        return 2 ** (len(self._vae.config.block_out_channels) - 1)

    def latent_shape(self, width_px: int, height_px: int) -> tuple[int, int, int]:
        """See `Family`."""
        return self._vae.config.latent_channels, height_px // self.scale_px, width_px // self.scale_px

    def shared_bytes(self) -> int:
        """See `Family`."""
        return self._batches.held_bytes()

    def decode(self, latents: Tensor, keep_on: KeepOn = regardless, tile: int | None = None) -> tuple[Tensor, Tensor]:
        """See `Family`."""
        return _shown(self._whole_or_tiled(latents, tile, lambda part: self._decoded(part, keep_on)))

    def decode_in_float32(self, latents: Tensor, tile: int | None = None) -> tuple[Tensor, Tensor] | None:
        """See `Family`."""
        if dtype_of(self._vae) is torch.float32:
            return None
        # A copy: the model itself keeps its precision. It is freed with the picture.
        decoder = VaeDecoder(copy.deepcopy(self._vae).float())

        def decoded(part: Tensor) -> Tensor:
            return decoder(self._unscaled(part).float().to(memory_format=self._layout))

        return _shown(self._whole_or_tiled(latents, tile, decoded))

    def _whole_or_tiled(self, latents: Tensor, tile: int | None, decode: Callable[[Tensor], Tensor]) -> Tensor:
        return decode(latents) if tile is None else in_tiles(latents, tile, decode, self.scale_px)

    def encode_picture(
        self, pixels: Tensor, keep_on: KeepOn = regardless, hidden: Tensor | None = None
    ) -> PictureLatents:
        """See `Family`."""
        whole = from_pixels(pixels) if hidden is None else from_pixels(pixels) * (1 - to_device(hidden, pixels.device))
        # `to` takes one picture of a file, whose channels are last, for one in any order.
        picture = whole.to(dtype_of(self._vae)).contiguous(memory_format=self._layout)
        mean, log_variance = (part.float() for part in self._encoder(picture, keep_on))
        shift, deviation = self._statistics(torch.float32)
        scale = self._vae.config.scaling_factor / deviation
        # The bounds of diffusers' DiagonalGaussianDistribution.
        spread = (0.5 * log_variance.clamp(-30.0, 20.0)).exp()
        return PictureLatents(mean=(mean - shift) * scale, deviation=spread * scale)

    def encode_reference(self, pixels: Tensor, keep_on: KeepOn = regardless, hidden: Tensor | None = None) -> Tensor:
        """See `Family`. The latents of other pictures, at the middle of their distribution."""
        return self.encode_picture(pixels, keep_on, hidden).mean

    def inpaint_channels(self, seen: Tensor, hidden: Tensor, cells: Tensor) -> Tensor:
        """See `Family`. The mask, then the picture: the order of Stable Diffusion's inpainting models."""
        return torch.cat([cells.to(seen).expand(len(seen), -1, -1, -1), seen], dim=1)

    @cached_property
    def _encoder(self) -> VaeEncoder:
        """Built when a picture comes: a model whose encoder is of another kind still makes pictures from text."""
        return VaeEncoder(self._vae)

    def prepare_previews(self) -> None:
        """See `Family`."""
        self._colours.fit()

    def preview(self, x0: Tensor, size: tuple[int, int]) -> Tensor:
        """See `Family`."""
        colours = self._colours.of(x0)
        return as_pixels(torch.nn.functional.interpolate(colours, size, mode="bilinear", align_corners=False))

    def _decoded(self, latents: Tensor, keep_on: KeepOn = regardless) -> Tensor:
        """Scaled latents → pictures in −1..1. The scale is what made the latents' variance about 1."""
        unscaled = self._unscaled(latents)
        return self._decoder(unscaled.to(dtype_of(self._vae), memory_format=self._layout), keep_on)

    def _unscaled(self, latents: Tensor) -> Tensor:
        mean, deviation = self._statistics(latents.dtype)
        return latents * deviation / self._vae.config.scaling_factor + mean

    def _encoded(self, pictures: Tensor) -> Tensor:
        """Pictures in −1..1 → scaled latents, without the encoder's own noise."""
        mean, deviation = self._statistics(dtype_of(self._vae))
        inputs = pictures.to(dtype_of(self._vae)).contiguous(memory_format=self._layout)
        return (self._vae.encode(inputs).latent_dist.mean - mean) * self._vae.config.scaling_factor / deviation

    def _statistics(self, dtype: torch.dtype) -> tuple[Tensor | float, Tensor | float]:
        """Mean and deviation of the VAE's own latents, by channel, where its config has them; else its shift and 1."""
        config = self._vae.config
        mean, deviation = getattr(config, "latents_mean", None), getattr(config, "latents_std", None)
        if mean and deviation:
            return self._by_channel(mean, dtype), self._by_channel(deviation, dtype)
        return config.shift_factor or 0.0, 1.0

    def _by_channel(self, values: Sequence[float], dtype: torch.dtype) -> Tensor:
        return to_device(torch.tensor(values, dtype=dtype), self._device).view(1, -1, 1, 1)


def _shown(pictures: Tensor) -> tuple[Tensor, Tensor]:
    """(n, 3, h, w) in −1..1 → pixels (n, h, w, 3), uint8, and whether every value of each was finite before: (n,)."""
    return as_pixels(pictures), torch.isfinite(pictures).flatten(1).all(1)
