"""Work that this version of the server cannot read."""

from typing import ClassVar

import msgspec

from domains.processing.jobs.kinds.assets import Asset
from domains.reasons import Domain


class UnreadableWork(msgspec.Struct, frozen=True, kw_only=True, tag="unreadable"):
    """Work that another version of the server stored, and that this one cannot read. Its job has failed."""

    domain: ClassVar[Domain] = Domain.PROCESSING
    alone: ClassVar[bool] = False
    has_prompt: ClassVar[bool] = True
    """It may have been a generation."""

    kind: str
    """As the other version called it."""
    version: int
    """Of the state folder when the job was stored."""
    summary: str = ""
    """As the other version had it."""

    @property
    def device_ids(self) -> tuple[str, ...]:
        """None: it never runs."""
        return ()

    @property
    def assets(self) -> tuple[Asset, ...]:
        """None: it never runs."""
        return ()
