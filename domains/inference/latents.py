"""Latents that a walk starts from."""

import msgspec


class ResolvedLatents(msgspec.Struct, frozen=True, kw_only=True):
    """Latents to start from, with every choice made."""

    blob_id: str = ""
    """Empty: those of an earlier pass of the same run."""
    sha256: str = ""
    """Hash of the file: a replay detects another one."""
    strength: float
    """Share of the steps that are computed, 0..1."""
