"""A model on disk: what it is, what it is made of, and where it lies."""

from enum import StrEnum

import msgspec


class ModelState(StrEnum):
    """Whether the files can be used."""

    AVAILABLE = "available"
    INCOMPATIBLE = "incomplete_or_unknown"
    CORRUPT = "corrupt"
    MISSING = "missing"


class Component(msgspec.Struct, frozen=True, kw_only=True):
    """One part of a model: the denoiser, the VAE, a text encoder …"""

    id: str
    """`unet`, `vae`, `text_encoder`, `tokenizer`, `scheduler`: the folder's name in a diffusers layout."""
    files: tuple[str, ...]
    """Paths relative to the model's folder."""
    size_bytes: int
    parameter_count: int
    """0 for parts without weights."""
    precision: str
    """Stored precision in torch's words: `float16`, `float32`; empty for parts without weights."""


class Model(msgspec.Struct, frozen=True, kw_only=True):
    """A model that a scan found or that the package embeds."""

    id: str
    """Stable, readable, unique: `emoji-sd`."""
    display_name: str
    family: str
    """`sd1` …; empty if no known family matched."""
    folder: str
    """Absolute path of the diffusers folder on the server's machine, without symlinks."""
    components: tuple[Component, ...]
    size_bytes: int
    sha256: str
    """Over all weight files (see `fingerprint`): names the content on any machine."""
    state: ModelState
    problem: str = ""
    """Why it is not available; empty if it is."""
    native_width_px: int = 0
    """Size it was trained at; 0: not known."""
    native_height_px: int = 0
    prediction_type: str = ""
    """What the denoiser predicts: `epsilon`, `v_prediction`, `sample`."""
    default_sampler: str = ""
    """Our id for the sampler that the model ships with; empty if we have none like it."""
    default_sigma_schedule: str = ""
    """The sigma schedule that its scheduler_config.json asks for; empty if it has no such file."""
    known_prompts: tuple[str, ...] = ()
    """Names the model is known to draw, where its folder lists them; empty: not known."""
    embedded: bool = False
    """Comes with the package."""
