"""Textual inversions of a generation: words that it learns from files, as requested and with every choice made."""

import msgspec


class TextualInversion(msgspec.Struct, frozen=True, kw_only=True):
    """A learned word to read for one job, as requested."""

    model_id: str
    token: str = ""
    """The word in the prompts that stands for it. Empty: the one that its file names."""
    weight: float | None = None
    """Factor on its vectors, 0..2. Absent: 1."""


class ResolvedTextualInversion(msgspec.Struct, frozen=True, kw_only=True):
    """A learned word with every choice made."""

    model_id: str
    model_sha256: str
    """SHA-256 of its file: a replay detects another one with the same id."""
    token: str
    weight: float
