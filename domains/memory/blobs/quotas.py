"""Quotas of the blobs that clients make, and the admission before memory is allocated."""

from collections.abc import AsyncGenerator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Protocol

import msgspec

from domains.amounts import bytes_told
from domains.errors import ErrorReason, NotFound, ResourceExhausted
from domains.memory.blobs.blob import Blob, BlobSpec
from domains.memory.blobs.rows import BlobRows


class BlobLimits(msgspec.Struct, frozen=True, kw_only=True):
    """Limits of the blobs that clients make. Blobs of jobs are removed with their jobs and do not count."""

    max_count: int = 100_000
    max_bytes: int | None = None
    """Bytes in all tiers but MAPPED. None: only memory and disk limit them."""
    keep_for_s: float = 24 * 3600
    """Seconds that a blob is kept if its request sets no time."""


class BlobAdmission(Protocol):
    """The sessions, budgets and reservations, which may refuse a blob."""

    def check_session(self, session_id: str) -> None:
        """SESSION_NOT_FOUND unless it is open."""
        ...

    def admit(self, blob: Blob, spec: BlobSpec) -> AbstractAsyncContextManager[None]:
        """A context in which the memory of a blob is allocated. Entering it uses the reservation up.

        Entering raises BUDGET_EXCEEDED, the pool's out-of-memory reason, or the error of the reservation.
        """
        ...


class NoSessions:
    """The admission of a store without sessions and reservations."""

    def check_session(self, session_id: str) -> None:
        """Refuse every session."""
        raise NotFound(
            f"there is no session {session_id!r}; leave it empty", ErrorReason.SESSION_NOT_FOUND, session_id=session_id
        )

    @asynccontextmanager
    async def admit(self, blob: Blob, spec: BlobSpec) -> AsyncGenerator[None]:
        """Refuse a blob that names a reservation."""
        if spec.reservation_id:
            message = f"there is no reservation {spec.reservation_id!r}; leave it empty"
            raise NotFound(message, ErrorReason.RESERVATION_NOT_FOUND, reservation_id=spec.reservation_id)
        yield


class Quotas:
    """The count and bytes of the blobs of clients, with those that are being made."""

    def __init__(self, rows: BlobRows, limits: BlobLimits) -> None:
        self.limits = limits
        self._rows = rows
        self._coming: dict[str, int] = {}

    def add(self, blob_id: str, size_bytes: int) -> None:
        """Count a blob whose row is not written yet; QUOTA_EXCEEDED. `settle` ends this."""
        limits, rows = self.limits, self._rows
        count = rows.client_count + len(self._coming) + 1
        if count > limits.max_count:
            message = f"there are {count - 1} blobs already, {limits.max_count} are allowed; delete some"
            raise ResourceExhausted(message, ErrorReason.QUOTA_EXCEEDED, limit=limits.max_count, count=count - 1)
        held = rows.client_bytes + sum(self._coming.values())
        if limits.max_bytes is not None and held + size_bytes > limits.max_bytes:
            message = (
                f"{bytes_told(size_bytes)} more than the {bytes_told(held)} there are would be over "
                f"{bytes_told(limits.max_bytes)}; delete blobs"
            )
            raise ResourceExhausted(
                message,
                ErrorReason.QUOTA_EXCEEDED,
                limit_bytes=limits.max_bytes,
                held_bytes=held,
                needed_bytes=size_bytes,
            )
        self._coming[blob_id] = size_bytes

    def settle(self, blob_id: str) -> None:
        """Stop counting a blob whose row is written, or will not be."""
        self._coming.pop(blob_id, None)
