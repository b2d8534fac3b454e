"""Latents that a walk starts from, or that a job hands out, as a safetensors file with one tensor `latents`.

Latents that hold noise are clean + σ/α·noise, as in ComfyUI and k-diffusion's solvers. So a job can continue from latents
that another job hands out before its walk ends.
"""

import msgspec

TENSOR = "latents"


class InitLatents(msgspec.Struct, frozen=True, kw_only=True):
    """Latents to start from, as requested."""

    blob_id: str
    """The blob with the file."""
    strength: float | None = None
    """Share of the steps that are computed, 0..1. Absent: 1, unless a first step is given."""


class ReadLatents(msgspec.Struct, frozen=True, kw_only=True):
    """What is known of a file of latents once its header was read."""

    blob_id: str
    sha256: str
    shape: tuple[int, ...]
    """(pictures, channels, height, width)."""


class ResolvedLatents(msgspec.Struct, frozen=True, kw_only=True):
    """Latents to start from, with every choice made."""

    blob_id: str = ""
    """Empty: those of an earlier pass of the same run."""
    sha256: str = ""
    """Hash of the file: a replay detects another one."""
    strength: float
    """Share of the steps that are computed, 0..1."""
