"""One noise level: latents there are α·clean + σ·noise."""

import math

import msgspec


class Level(msgspec.Struct, frozen=True):
    """A noise level and the timestep by which the denoiser knows it."""

    alpha: float
    """Share of the clean latents, 0..1."""
    sigma: float
    """Share of the noise, 0..1."""
    timestep: float
    """What the denoiser is told; meaningless for the last level, at which it is not asked."""

    @property
    def ratio(self) -> float:
        """σ/α, the "sigma" of k-diffusion and of Karras et al. 2022; infinite at pure noise."""
        return self.sigma / self.alpha if self.alpha else math.inf

    @property
    def log_snr(self) -> float:
        """λ = log(α/σ), half of the logarithm of the signal-to-noise ratio (Lu et al. 2022); infinite without noise."""
        if not self.sigma:
            return math.inf
        return math.log(self.alpha / self.sigma) if self.alpha else -math.inf


def at_ratio(ratio: float, timestep: float) -> Level:
    """The level of a variance-preserving model (α² + σ² = 1) at a ratio σ/α."""
    scale = 1 / math.hypot(1.0, ratio)
    return Level(scale, ratio * scale, timestep)


def in_flow(sigma: float, timestep: float) -> Level:
    """The level of a flow model (α = 1 − σ; Liu et al. 2022)."""
    return Level(1 - sigma, sigma, timestep)
