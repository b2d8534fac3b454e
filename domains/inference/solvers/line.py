"""One evaluation of the denoiser, and what follows from it, as coefficients."""

import math

import msgspec

from domains.inference.solvers.level import Level


class Mix(msgspec.Struct, frozen=True):
    """`latents`·x + `output`·o of the latents and of the denoiser's output for them."""

    latents: float
    output: float


class Sum(msgspec.Struct, frozen=True, kw_only=True):
    """What a line adds up. A coefficient of 0 means that the tensor is not read."""

    latents: float = 0.0
    anchor: float = 0.0
    kept: tuple[float, ...] = ()
    """Of this line's kept tensor, then of those of earlier lines, the newest first."""
    noise: float = 0.0


class Line(msgspec.Struct, frozen=True, kw_only=True):
    """What happens after one evaluation. All tensors are linear in those before."""

    timestep: float
    """For the denoiser."""
    clean: Mix
    """The estimate of the clean latents."""
    kept: Mix
    """The tensor that the solver works with: `clean`, the noise, or the output itself."""
    following: Sum
    """The next latents."""
    anchor: Sum | None = None
    """What becomes the anchor, a tensor that outlives the line; None: it stays."""
    remembered: bool = True
    """Whether later lines see this one's kept tensor."""
    ends_step: bool = True
    """Whether the next latents are at the end of a step, not at a place within."""


def clean_of(level: Level, prediction: str) -> Mix:
    """The clean latents from a denoiser's output."""
    alpha, sigma = level.alpha, level.sigma
    match prediction:
        case "epsilon":
            return Mix(1 / alpha, -sigma / alpha)
        case "v_prediction":
            return Mix(alpha, -sigma)
        case "flow":
            return Mix(1.0, -sigma)
        case _:
            return Mix(0.0, 1.0)


def noise_of(level: Level, prediction: str) -> Mix:
    """The noise in the latents from a denoiser's output."""
    alpha, sigma = level.alpha, level.sigma
    match prediction:
        case "epsilon":
            return Mix(0.0, 1.0)
        case "v_prediction":
            return Mix(sigma, alpha)
        case "flow":
            return Mix(1.0, alpha)
        case _:
            return Mix(1 / sigma, -alpha / sigma)


def toward(begin: Level, end: Level) -> tuple[float, float]:
    """Coefficients of latents and clean latents for a step along the straight line of both: Euler's, which is DDIM's."""
    shrunk = end.sigma / begin.sigma
    return shrunk, end.alpha - shrunk * begin.alpha


def ancestral(begin: Level, end: Level) -> tuple[float, float]:
    """(σ/α to walk down to, σ/α of the new noise), which together give the end's ratio; k-diffusion's split with eta 1."""
    ratio = end.ratio
    inverse = 1 / begin.ratio
    return ratio**2 * inverse, ratio * math.sqrt(max(0.0, 1 - (ratio * inverse) ** 2))
