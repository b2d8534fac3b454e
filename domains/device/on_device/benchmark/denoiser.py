"""A small denoising network with the structure of diffusion models: random weights, no training."""

import torch
import torch.nn.functional as F  # noqa: N812  # torch's own name for it
from torch import Tensor, nn

WIDTH = 64
SIDE = 64
_HEADS = 4
_SEED = 21


class Residual(nn.Module):
    """Two convolutions with the time step's features, added to the input."""

    def __init__(self, channels_in: int, channels_out: int, time_width: int) -> None:
        super().__init__()
        self.norm1 = nn.GroupNorm(16, channels_in)
        self.conv1 = nn.Conv2d(channels_in, channels_out, 3, padding=1)
        self.time = nn.Linear(time_width, channels_out)
        self.norm2 = nn.GroupNorm(16, channels_out)
        self.conv2 = nn.Conv2d(channels_out, channels_out, 3, padding=1)
        self.skip = nn.Conv2d(channels_in, channels_out, 1)

    def forward(self, pixels: Tensor, time: Tensor) -> Tensor:
        """(n, in, h, w), (n, time_width) → (n, out, h, w)."""
        inner = self.conv1(F.silu(self.norm1(pixels))) + self.time(time)[:, :, None, None]
        return self.skip(pixels) + self.conv2(F.silu(self.norm2(inner)))


class Attention(nn.Module):
    """Self-attention over all positions."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(16, channels)
        self.to_qkv = nn.Linear(channels, 3 * channels)
        self.out = nn.Linear(channels, channels)

    def forward(self, pixels: Tensor) -> Tensor:
        """(n, c, h, w) → (n, c, h, w)."""
        n, c, h, w = pixels.shape
        tokens = self.norm(pixels).flatten(2).transpose(1, 2)
        q, k, v = self.to_qkv(tokens).view(n, h * w, 3, _HEADS, c // _HEADS).permute(2, 0, 3, 1, 4)
        mixed = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(n, h * w, c)
        return pixels + self.out(mixed).transpose(1, 2).view(n, c, h, w)


class Denoiser(nn.Module):
    """A small U-Net: one downsampling, attention, one upsampling."""

    def __init__(self, width: int = WIDTH) -> None:
        super().__init__()
        self.time = nn.Linear(width, 4 * width)
        self.first = nn.Conv2d(4, width, 3, padding=1)
        self.down = Residual(width, width, 4 * width)
        self.shrink = nn.Conv2d(width, 2 * width, 3, stride=2, padding=1)
        self.middle1 = Residual(2 * width, 2 * width, 4 * width)
        self.attention = Attention(2 * width)
        self.middle2 = Residual(2 * width, 2 * width, 4 * width)
        self.up = Residual(3 * width, width, 4 * width)
        self.last = nn.Conv2d(width, 4, 3, padding=1)

    def forward(self, latents: Tensor, time: Tensor) -> Tensor:
        """(n, 4, h, w) latents and (n, width) time features → the predicted noise, in the latents' shape."""
        step = F.silu(self.time(time))
        wide = self.down(self.first(latents), step)
        inner = self.middle2(self.attention(self.middle1(self.shrink(wide), step)), step)
        raised = F.interpolate(inner, scale_factor=2.0, mode="nearest")
        return self.last(self.up(torch.cat((raised, wide), dim=1), step))


def denoiser(device: torch.device, dtype: torch.dtype, side: int = SIDE) -> tuple[Denoiser, Tensor, Tensor]:
    """The network, its latents and its time features, from a fixed seed; the process's default generator is not used."""
    generator = torch.Generator().manual_seed(_SEED)
    with torch.device("meta"):
        network = Denoiser()
    network = network.to_empty(device="cpu")
    for values in network.parameters():
        fan_in = max(values[0].numel(), 1)
        values.data.normal_(0.0, fan_in**-0.5, generator=generator)
    latents = torch.randn(1, 4, side, side, generator=generator)
    time = torch.randn(1, WIDTH, generator=generator)
    return network.to(device, dtype).eval(), latents.to(device, dtype), time.to(device, dtype)
