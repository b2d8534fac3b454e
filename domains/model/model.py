"""A model on disk: its identity, its parts and its place."""

import os
from enum import StrEnum

import msgspec

from domains.errors import ErrorReason
from domains.model.detect.evidence import Evidence, confidence_of
from domains.model.kind import ModelKind


class ModelState(StrEnum):
    """Whether the files can be used."""

    AVAILABLE = "available"
    INCOMPATIBLE = "incomplete_or_unknown"
    CORRUPT = "corrupt"
    MISSING = "missing"


REASONS = {
    ModelState.INCOMPATIBLE: ErrorReason.MODEL_INCOMPATIBLE,
    ModelState.CORRUPT: ErrorReason.MODEL_CORRUPT,
    ModelState.MISSING: ErrorReason.COMPONENT_MISSING,
}
"""The reason that a state gives for a model that cannot be used."""


class ModelLayout(StrEnum):
    """How a model's files lie on disk."""

    DIFFUSERS = "diffusers"
    """A folder with an index, and a folder for each component."""
    COMPONENT = "component"
    """A folder with the weights of one component and its config."""
    FILE = "safetensors"
    """One file."""
    PARTS = "parts"
    """Components of other models; it has no folder."""


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
    mix: tuple[tuple[str, int], ...] = ()
    """Number of its weights by precision, the most frequent first. Empty: it has none, or an older version stored it."""
    kind: ModelKind = ModelKind.UNKNOWN
    """UNKNOWN: its id says it."""
    architecture: str = ""
    """Class of diffusers or transformers, or the network's usual name; empty: not known."""
    layout: ModelLayout = ModelLayout.DIFFUSERS
    """FILE: its tensors lie in one file with others, under the names of a single file."""
    settings: str = ""
    """Values of its config that count instead of those in the file, as a JSON object: its tensors tell them. Empty: none."""


class FileStamp(msgspec.Struct, frozen=True, kw_only=True):
    """A file of a model as its scan saw it. A load opens exactly this file and detects changes."""

    path: str
    """Relative to the model's folder."""
    real: str
    """Absolute path without symlinks; the scan found it inside the roots."""
    state: str = ""
    """Size, times and inode of a weight file when it was hashed (`regular_file.state_of`). Empty: not a weight file, or too
    young to tell a change by its time."""
    sha256: str = ""
    """SHA-256 of a weight file's content; empty for other files."""
    data_sha256: str = ""
    """SHA-256 of what follows the header; empty: not computed, or no header."""
    tensor_sha256: str = ""
    """`content_hash.tensor_hash`: the same for the same tensors under other metadata; empty: not computed."""
    short_hash: str = ""
    """A1111's older hash, 8 digits; empty: not computed."""
    size_bytes: int | None = None
    """Size of the file. None: not noted."""
    blob_id: str = ""
    """The blob that the file is. Empty: it lies in a model root."""
    generation: int = 0
    """Edition of the blob's content."""


class Model(msgspec.Struct, frozen=True, kw_only=True):
    """A model that a scan found or that the package embeds."""

    id: str
    """Stable, readable, unique: `emoji-sd`."""
    display_name: str
    family: str
    """`sd1` …; empty if no known family matched."""
    variant: str = ""
    """Variant of its family: `inpainting`, `editing` …; empty: none that is known."""
    folder: str
    """Absolute path of the folder, or of the only file, on the server's machine, without symlinks."""
    layout: ModelLayout = ModelLayout.DIFFUSERS
    kind: ModelKind = ModelKind.CHECKPOINT
    components: tuple[Component, ...]
    size_bytes: int
    sha256: str
    """Hash over all weight files (see `domains.model.fingerprint`): identifies the content on any machine."""
    state: ModelState
    problem: str = ""
    """Why it is not available; empty if it is."""
    reason: ErrorReason | None = None
    """Reason of the problem. None: its state says it."""
    native_width_px: int = 0
    """Width at training; 0: not known."""
    native_height_px: int = 0
    prediction_type: str = ""
    """What the denoiser predicts: `epsilon`, `v_prediction`, `sample`, `flow`."""
    default_sampler: str = ""
    """Our id of the sampler that the model ships with; empty: we have none like it."""
    default_sigma_schedule: str = ""
    """The sigma schedule that its scheduler_config.json asks for; empty if it has no such file."""
    train_steps: int = 0
    """Number of noise levels at training; 0: not known."""
    known_prompts: tuple[str, ...] = ()
    """Names that the model can draw, as its folder lists them; empty: not known."""
    embedded: bool = False
    """The model is part of the package."""
    compatible_families: tuple[str, ...] = ()
    """Families that it can be added to; empty: it stands by itself, or it is not known."""
    evidence: tuple[Evidence, ...] = ()
    """What was weighed to tell kind and family, the decisive pieces first."""
    remarks: tuple[str, ...] = ()
    """Facts worth knowing that no field holds: the key format of a LoRA, averaged weights beside the others."""
    warnings: tuple[str, ...] = ()
    """Contradictions between what its files say and what they hold."""
    metadata: tuple[tuple[str, str], ...] = ()
    """What its files say about themselves."""
    version: str = ""
    """The version that its files name."""
    token: str = ""
    """Of a textual inversion: the word that its file names. Empty: none."""
    files: tuple[FileStamp, ...] = ()
    """All files of the components. Empty in a model that an older version stored: then none may be a symlink."""
    base_id: str = ""
    """Model whose family and components it has; empty: it is none of components of others."""
    taken: tuple[tuple[str, str], ...] = ()
    """Components that come from other models than its base, with the model's id."""
    labels: tuple[tuple[str, str], ...] = ()
    """The callers' own marks."""
    update_time_s: float = 0.0
    """Unix time of the last change of what is known about it; 0: not known."""
    validate_time_s: float = 0.0
    """Unix time of the last validation; 0: there was none."""

    @property
    def fault(self) -> ErrorReason | None:
        """Why it cannot be used. None: it can."""
        return None if self.state is ModelState.AVAILABLE else self.reason or REASONS[self.state]

    @property
    def flow(self) -> bool:
        """Whether it is a flow model, whose latents are (1 − σ)·clean + σ·noise."""
        return self.prediction_type == "flow"

    @property
    def confidence(self) -> float | None:
        """How sure kind and family are, 0..1. None: nothing was recognised."""
        return confidence_of(self.evidence)

    def stamp(self, path: str) -> FileStamp:
        """The stamp of the file at `path`, relative to the folder; one without a state where the scan saw no such file."""
        unseen = FileStamp(path=path, real=os.path.join(self.folder, path))
        return next((file for file in self.files if file.path == path), unseen)

    def same_as(self, other: "Model") -> bool:
        """Whether both are the same model with the same content; place and time of the files do not count."""
        here = {name: getattr(other, name) for name in ("files", "update_time_s", "validate_time_s")}
        return msgspec.structs.replace(self, **here) == other
