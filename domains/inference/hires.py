"""The second pass at a larger size: as requested, and with every choice made."""

import msgspec

from domains.inference.resampling import Resampling

DEFAULT_SCALE = 2.0
DEFAULT_STRENGTH = 0.5


class HiresPass(msgspec.Struct, frozen=True, kw_only=True):
    """A second pass, as requested. What it leaves open is as in the first pass."""

    scale: float | None = None
    """1..4. Absent: `size_px`, else 2."""
    size_px: tuple[int, int] | None = None
    """(width, height) of the result."""
    latent_filter: Resampling | None = None
    """Enlarges latents. Absent: BICUBIC, unless `pixel_filter` is set."""
    pixel_filter: Resampling | None = None
    """Enlarges pixels."""
    upscaler_model_id: str | None = None
    """The model that enlarges pixels. Absent: a filter does."""
    strength: float | None = None
    """Share of the steps that are computed, 0..1. Absent: 0.5."""
    steps: int | None = None
    sampler: str = ""
    sigma_schedule: str = ""
    guidance_scale: float | None = None
    prompt: str = ""
    negative_prompt: str = ""
    model_id: str = ""


class ResolvedHires(msgspec.Struct, frozen=True, kw_only=True):
    """A second pass with every choice made."""

    width_px: int
    """Of the result."""
    height_px: int
    filter: Resampling
    of_pixels: bool
    """Whether the filter enlarges decoded pixels, which are then encoded. Otherwise it enlarges the latents."""
    upscaler_model_id: str = ""
    """The model that enlarges pixels to at least the size; the filter then brings them to it. Empty: the filter does all."""
    upscaler_sha256: str = ""
    """Hash of its weights."""
    strength: float
    """Share of the steps that are computed."""
    steps: int
    sampler: str
    sigma_schedule: str
    """Empty: the first pass's own noise levels."""
    guidance_scale: float
    eta: float | None
    """None: the sampler does not use it."""
    prompt: str = ""
    """Empty: as in the first pass."""
    negative_prompt: str = ""
    """Empty: as in the first pass."""
    model_id: str = ""
    """Empty: that of the first pass."""
    model_sha256: str = ""
    """Hash of its weights: a replay detects another model with the same id."""
