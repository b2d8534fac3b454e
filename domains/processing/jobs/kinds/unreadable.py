"""Work that this version of the server cannot read."""

from typing import ClassVar

from domains.processing.jobs.kinds.entry import PlainWork
from domains.reasons import Domain


class UnreadableWork(PlainWork, frozen=True, kw_only=True, tag="unreadable"):
    """Work that another version of the server stored, and that this one cannot read. Its job has failed."""

    domain: ClassVar[Domain] = Domain.PROCESSING
    has_prompt: ClassVar[bool] = True
    """True, because the work may be a generation."""

    kind: str
    """Name of the kind in the other version."""
    version: int
    """Version of the state folder when the job was stored."""
    summary: str = ""
    """Summary that the other version stored."""
