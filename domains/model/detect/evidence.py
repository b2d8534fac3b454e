"""What a detection found, as values: the pieces of evidence and the answer."""

from collections.abc import Mapping, Sequence
from enum import StrEnum
from typing import Any

import msgspec

from domains.model.families.sign import Match, Tensors
from domains.model.kind import ModelKind

MAX_KEYS = 64
"""Most names in one list of a piece of evidence."""


class Source(StrEnum):
    """What was looked at."""

    MODEL_INDEX = "model_index"
    CONFIG = "config"
    TENSOR_NAMES = "tensor_names"
    TENSOR_SHAPES = "tensor_shapes"
    METADATA = "header_metadata"


class Evidence(msgspec.Struct, frozen=True, kw_only=True):
    """One comparison of the files with what a kind or a family has."""

    family: str = ""
    """Family that this speaks for; empty: for a kind only."""
    kind: ModelKind = ModelKind.UNKNOWN
    component: str = ""
    """Component that was looked at; empty: the whole model."""
    source: Source
    expected: int = 0
    """Number of keys that were looked for."""
    matched: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()
    unexpected: tuple[str, ...] = ()
    decisive: bool

    @property
    def matched_count(self) -> int:
        """Number of expected keys that are there."""
        return max(0, self.expected - len(self.missing))

    @property
    def share(self) -> float | None:
        """Share of the expected keys that are there. None: no key was looked for."""
        return self.matched_count / self.expected if self.expected else None


class Part(msgspec.Struct, frozen=True, kw_only=True):
    """A component inside a file."""

    id: str
    kind: ModelKind
    architecture: str = ""
    """Class of diffusers or transformers, or the network's usual name. Empty: not known."""
    tensors: tuple[str, ...] | None = None
    """Full names of its tensors. None: all of the file."""


class Detection(msgspec.Struct, frozen=True, kw_only=True):
    """What some tensors are. The default is the answer where nothing is recognised."""

    kind: ModelKind = ModelKind.UNKNOWN
    family: str = ""
    variant: str = ""
    compatible: tuple[str, ...] = ()
    """Families that it can be added to."""
    parts: tuple[Part, ...] = ()
    missing: tuple[str, ...] = ()
    """Components that a whole model of its family has and this one lacks."""
    prediction_type: str = ""
    version: str = ""
    token: str = ""
    """The word that learned vectors stand for, as their file names it. Empty: none."""
    evidence: tuple[Evidence, ...] = ()
    """The decisive pieces first."""
    notes: tuple[str, ...] = ()
    """Facts worth knowing that no field holds."""
    warnings: tuple[str, ...] = ()
    """Contradictions between the file's metadata and its tensors."""

    @property
    def confidence(self) -> float | None:
        """Share of the expected keys that are there, over all decisive evidence. None: nothing was recognised."""
        return confidence_of(self.evidence)


def confidence_of(evidence: Sequence[Evidence]) -> float | None:
    """Share of the expected keys that are there, over the decisive pieces. None: none decides."""
    decisive = [one for one in evidence if one.decisive and one.expected]
    total = sum(one.expected for one in decisive)
    return sum(one.matched_count for one in decisive) / total if total else None


def of_match(found: Match, kind: ModelKind, family: str = "", component: str = "") -> Evidence:
    """The evidence of a comparison with a layout."""
    return Evidence(
        family=family,
        kind=kind,
        component=component,
        source=Source.TENSOR_SHAPES,
        expected=len(found.matched) + len(found.missing),
        matched=found.matched[:MAX_KEYS],
        missing=found.missing[:MAX_KEYS],
        unexpected=found.unexpected[:MAX_KEYS],
        decisive=found.proven,
    )


class Subject(msgspec.Struct, frozen=True, kw_only=True):
    """What is known about the tensors that are to be recognised."""

    tensors: Tensors
    metadata: Mapping[str, str] = {}
    config: Mapping[str, Any] = {}
    """config.json beside the file. Empty: none."""
