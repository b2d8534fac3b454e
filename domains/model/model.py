"""A model on disk: what it is, what it is made of, and where it lies."""

import os
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


class FileStamp(msgspec.Struct, frozen=True, kw_only=True):
    """A file of a model as its scan saw it. A load opens exactly this file, and knows whether it has changed since."""

    path: str
    """Relative to the model's folder."""
    real: str
    """Where it lies: an absolute path without symlinks, which the scan found inside the roots."""
    state: str = ""
    """Size, times and inode of a weight file when it was hashed (`regular_file.state_of`). Empty: not a weight file, or too
    young to tell a change by its time."""
    sha256: str = ""
    """Of a weight file's content; empty for other files."""


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
    train_steps: int = 0
    """Noise levels that it was trained with; 0: not known."""
    known_prompts: tuple[str, ...] = ()
    """Names the model is known to draw, where its folder lists them; empty: not known."""
    embedded: bool = False
    """Comes with the package."""
    files: tuple[FileStamp, ...] = ()
    """All files of the components. Empty in a model that an older version stored: then none may be a symlink."""

    def stamp(self, path: str) -> FileStamp:
        """The stamp of the file at `path`, relative to the folder; one without a state where the scan saw no such file."""
        unseen = FileStamp(path=path, real=os.path.join(self.folder, path))
        return next((file for file in self.files if file.path == path), unseen)

    def same_as(self, other: "Model") -> bool:
        """Whether both are the same model with the same content, wherever and whenever its files were written."""
        return msgspec.structs.replace(self, files=()) == msgspec.structs.replace(other, files=())
