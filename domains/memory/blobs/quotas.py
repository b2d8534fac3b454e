"""How much clients may keep in blobs, and who else is asked before memory is taken."""

from collections.abc import AsyncGenerator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Protocol

import msgspec

from domains.errors import ErrorReason, NotFound, ResourceExhausted
from domains.memory.blobs.blob import Blob, BlobSpec
from domains.memory.blobs.rows import BlobRows


class BlobLimits(msgspec.Struct, frozen=True, kw_only=True):
    """For the blobs that clients make; what jobs make goes with the jobs and counts nowhere here."""

    max_count: int = 100_000
    max_bytes: int | None = None
    """Over all tiers but MAPPED. None: only the memory and the disk bound them."""
    keep_for_s: float = 24 * 3600
    """How long a blob is kept that did not say it."""


class BlobAdmission(Protocol):
    """Who may refuse a blob: sessions, budgets, reservations."""

    def check_session(self, session_id: str) -> None:
        """SESSION_NOT_FOUND unless it is open."""
        ...

    def admit(self, blob: Blob, spec: BlobSpec) -> AbstractAsyncContextManager[None]:
        """Entered before memory is taken, left when it is taken or will not be.

        Entering raises BUDGET_EXCEEDED, too little memory, or what is wrong with the reservation, which is used up.
        """
        ...


class NoSessions:
    """Where there are no sessions and reservations, none can be named."""

    def check_session(self, session_id: str) -> None:
        """Always refuses."""
        raise NotFound(
            f"there is no session {session_id!r}; leave it empty", ErrorReason.SESSION_NOT_FOUND, session_id=session_id
        )

    @asynccontextmanager
    async def admit(self, blob: Blob, spec: BlobSpec) -> AsyncGenerator[None]:
        """Refuses a reservation."""
        if spec.reservation_id:
            message = f"there is no reservation {spec.reservation_id!r}; leave it empty"
            raise NotFound(message, ErrorReason.RESERVATION_NOT_FOUND, reservation_id=spec.reservation_id)
        yield


class Quotas:
    """Count and bytes, those on their way included."""

    def __init__(self, rows: BlobRows, limits: BlobLimits) -> None:
        self.limits = limits
        self._rows = rows
        self._claimed: dict[str, int] = {}

    def claim(self, blob_id: str, size_bytes: int) -> None:
        """Room for a blob whose row is not written yet; QUOTA_EXCEEDED. `settle` ends the claim."""
        limits, rows = self.limits, self._rows
        count = rows.client_count + len(self._claimed) + 1
        if count > limits.max_count:
            message = f"there are {count - 1} blobs already, {limits.max_count} are allowed; delete some"
            raise ResourceExhausted(message, ErrorReason.QUOTA_EXCEEDED, limit=limits.max_count, count=count - 1)
        held = rows.client_bytes + sum(self._claimed.values())
        if limits.max_bytes is not None and held + size_bytes > limits.max_bytes:
            message = (
                f"{size_bytes} bytes more than the {held} there are would be over {limits.max_bytes}; delete blobs"
            )
            raise ResourceExhausted(
                message,
                ErrorReason.QUOTA_EXCEEDED,
                limit_bytes=limits.max_bytes,
                held_bytes=held,
                needed_bytes=size_bytes,
            )
        self._claimed[blob_id] = size_bytes

    def settle(self, blob_id: str) -> None:
        """The row is written, or will not be."""
        self._claimed.pop(blob_id, None)
