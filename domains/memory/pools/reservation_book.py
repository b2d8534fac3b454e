"""Every reservation there is, and those that ended within the last hour."""

import secrets
from collections.abc import Iterator

import msgspec

from domains.errors import Aborted, ErrorReason, FailedPrecondition, NotFound
from domains.memory.pools.books import Promise
from domains.memory.pools.reservation import Reservation, ReservationAsk, ReservationState

LISTED_S = 3600.0
"""How long one that has ended is still listed."""
MAX_ENDED = 10_000
"""Of those that have ended, so many are kept at most."""


class Kept:
    """A reservation and the promise behind it."""

    __slots__ = ("promise", "reservation")

    def __init__(self, reservation: Reservation, promise: Promise) -> None:
        self.reservation = reservation
        self.promise = promise


class ReservationBook:
    """Reservations by id. It knows states and etags; whether there is room is the ledger's business."""

    def __init__(self) -> None:
        self._kept: dict[str, Kept] = {}
        self._ended: dict[str, Reservation] = {}
        """In the order in which they ended."""
        self._sequence = 0
        self._changes = 0

    def __len__(self) -> int:
        return len(self._kept)

    def draft(self, ask: ReservationAsk, now_s: float) -> Reservation:
        """A new one, HELD, that nobody sees yet."""
        self._sequence += 1
        return Reservation(
            id=f"r-{secrets.token_hex(8)}",
            pool_id=ask.pool_id,
            size_bytes=ask.size_bytes,
            purpose=ask.purpose,
            priority=ask.priority,
            state=ReservationState.HELD,
            session_id=ask.session_id,
            create_time_s=now_s,
            expire_time_s=now_s + ask.live_s,
            etag=self._etag(),
            sequence=self._sequence,
            labels=ask.labels,
        )

    def put(self, reservation: Reservation, promise: Promise) -> None:
        """It is HELD now."""
        self._kept[reservation.id] = Kept(reservation, promise)

    def change(self, kept: Kept, **fields: object) -> Reservation:
        """Other fields and another etag."""
        kept.reservation = msgspec.structs.replace(kept.reservation, **fields, etag=self._etag())
        return kept.reservation

    def end(self, kept: Kept, state: ReservationState, now_s: float, consumer_id: str = "") -> Reservation:
        """HELD no longer."""
        ended = self.change(kept, state=state, end_time_s=now_s, consumer_id=consumer_id)
        del self._kept[ended.id]
        self._ended[ended.id] = ended
        self._forget(now_s)
        return ended

    def delete(self, reservation_id: str) -> None:
        """It was never there."""
        self._kept.pop(reservation_id, None)
        self._ended.pop(reservation_id, None)

    def find(self, reservation_id: str) -> Reservation | None:
        """HELD or ended."""
        kept = self._kept.get(reservation_id)
        return kept.reservation if kept else self._ended.get(reservation_id)

    def held(self, reservation_id: str, etag: str = "") -> Kept:
        """One that is HELD. RESERVATION_NOT_FOUND, RESERVATION_EXPIRED, ILLEGAL_STATE or ETAG_MISMATCH otherwise."""
        reservation = self.known(reservation_id)
        if reservation.state is ReservationState.COMMITTED:
            raise FailedPrecondition(
                f"reservation {reservation_id} is used up by {reservation.consumer_id}, which gives the bytes back",
                ErrorReason.ILLEGAL_STATE,
                reservation_id=reservation_id,
                consumer_id=reservation.consumer_id,
            )
        if reservation.state is not ReservationState.HELD:
            message = f"reservation {reservation_id} has ended unused ({reservation.state}); make a new one"
            raise FailedPrecondition(message, ErrorReason.RESERVATION_EXPIRED, reservation_id=reservation_id)
        check_etag(reservation, etag)
        return self._kept[reservation_id]

    def known(self, reservation_id: str) -> Reservation:
        """HELD or ended; RESERVATION_NOT_FOUND otherwise."""
        reservation = self.find(reservation_id)
        if reservation is None:
            message = f"there is no reservation {reservation_id!r}; it was deleted, or ended more than an hour ago"
            raise NotFound(message, ErrorReason.RESERVATION_NOT_FOUND, reservation_id=reservation_id)
        return reservation

    def get(self, reservation_id: str, now_s: float) -> Reservation:
        """HELD, or ended within the hour; RESERVATION_NOT_FOUND otherwise."""
        self._forget(now_s)
        return self.known(reservation_id)

    def all_held(self, pool_id: str = "") -> Iterator[Kept]:
        """Those that are HELD, the oldest first. Without a pool: in all pools."""
        return (kept for kept in self._kept.values() if not pool_id or kept.reservation.pool_id == pool_id)

    def list(self, now_s: float) -> list[Reservation]:
        """All, the newest first."""
        self._forget(now_s)
        everything = [*(kept.reservation for kept in self._kept.values()), *self._ended.values()]
        return sorted(everything, key=lambda reservation: -reservation.sequence)

    def _etag(self) -> str:
        self._changes += 1
        return f"{self._changes:x}"

    def _forget(self, now_s: float) -> None:
        while self._ended:
            oldest = next(iter(self._ended.values()))
            if len(self._ended) <= MAX_ENDED and (oldest.end_time_s or 0) > now_s - LISTED_S:
                return
            del self._ended[oldest.id]


def check_etag(reservation: Reservation, etag: str) -> None:
    """ETAG_MISMATCH if the caller knows another state of it. Empty: whatever there is."""
    if etag and etag != reservation.etag:
        message = f"reservation {reservation.id} has changed since; list it again and retry"
        raise Aborted(message, ErrorReason.ETAG_MISMATCH, reservation_id=reservation.id, etag=reservation.etag)
