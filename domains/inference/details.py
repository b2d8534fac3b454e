"""Passes over what a detector finds in a finished picture: as requested, and with every choice made."""

import msgspec

from domains.inference.detections import Find, Wanted

DEFAULT_STRENGTH = 0.4
DEFAULT_DILATION_PX = 4
DEFAULT_BLUR_PX = 4
DEFAULT_PADDING_PX = 32


class DetailPass(msgspec.Struct, frozen=True, kw_only=True):
    """A pass, as requested. What it leaves open is as in the generation."""

    detector_model_id: str = ""
    """Empty: the server's default."""
    label: str = ""
    """Empty: faces."""
    min_confidence: float | None = None
    """0..1. Absent: 0.5."""
    min_area: float | None = None
    """Smallest share of the picture's area that a box may have. Absent: 0."""
    max_area: float | None = None
    """Largest share. Absent: 1."""
    max_count: int = 0
    """The most findings that count. 0: 100."""
    prompt: str = ""
    negative_prompt: str = ""
    strength: float | None = None
    """Share of the steps that are computed, 0..1. Absent: 0.4."""
    steps: int | None = None
    dilation_px: int | None = None
    """How much the box of a find grows first. Absent: 4."""
    blur_px: int | None = None
    """Width of the ramp inside its edge. Absent: 4."""
    padding_px: int | None = None
    """How much around it is cut out with it. Absent: 32."""
    edge_px: int = 0
    """Longer edge at which a find is made. 0: the model's native size."""


class ResolvedDetail(msgspec.Struct, frozen=True, kw_only=True):
    """A pass with every choice made."""

    detector_model_id: str
    detector_sha256: str
    """Hash of its weights: a replay detects another one with the same id."""
    wanted: Wanted
    prompt: str
    """Empty: as in the generation."""
    negative_prompt: str
    """Empty: as in the generation."""
    strength: float
    steps: int
    dilation_px: int
    blur_px: int
    padding_px: int
    width_px: int
    """At which a find is made."""
    height_px: int


class Detailed(msgspec.Struct, frozen=True, kw_only=True):
    """What a pass has found in a picture."""

    pass_index: int
    """Which of the generation's detail passes, from 0."""
    find: Find
