"""The table of reservations: those that are HELD, and those that ended within the last hour."""

import itertools
import secrets
from collections.abc import Iterator

import msgspec

from domains.clock import ClockStep
from domains.errors import Aborted, ErrorReason, FailedPrecondition, NotFound
from domains.memory.pools.claims import Claim
from domains.memory.pools.reservation import Reservation, ReservationAsk, ReservationState

LISTED_S = 3600.0
"""How long an ended reservation stays listed."""
MAX_ENDED = 10_000
"""The most ended reservations that the table keeps."""


class HeldReservation:
    """A HELD reservation and the claim on its bytes."""

    __slots__ = ("claim", "reservation")

    def __init__(self, reservation: Reservation, claim: Claim) -> None:
        self.reservation = reservation
        self.claim = claim


class ReservationTable:
    """Reservations by id, with their states and etags. `Reservations` decides whether a pool has room."""

    def __init__(self) -> None:
        self._held: dict[str, HeldReservation] = {}
        self._ended: dict[str, Reservation] = {}
        """In the order in which they ended."""
        self._sequence = itertools.count()
        self._changes = itertools.count()

    def __len__(self) -> int:
        return len(self._held)

    def draft(self, ask: ReservationAsk, now_s: float) -> Reservation:
        """A new reservation that is not in the table yet."""
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
            sequence=next(self._sequence),
            labels=ask.labels,
        )

    def put(self, reservation: Reservation, claim: Claim) -> None:
        """Add a HELD reservation."""
        self._held[reservation.id] = HeldReservation(reservation, claim)

    def change(self, held: HeldReservation, **fields: object) -> Reservation:
        """Replace fields and the etag."""
        held.reservation = msgspec.structs.replace(held.reservation, **fields, etag=self._etag())
        return held.reservation

    def end(self, held: HeldReservation, state: ReservationState, now_s: float, consumer_id: str = "") -> Reservation:
        """Move a reservation from the HELD ones to the ended ones."""
        ended = self.change(held, state=state, end_time_s=now_s, consumer_id=consumer_id)
        del self._held[ended.id]
        self._ended[ended.id] = ended
        self._forget(now_s)
        return ended

    def delete(self, reservation_id: str) -> None:
        """Remove a reservation without a trace."""
        self._held.pop(reservation_id, None)
        self._ended.pop(reservation_id, None)

    def find(self, reservation_id: str) -> Reservation | None:
        """HELD or ended. None: deleted, ended long ago, or of an earlier server process."""
        held = self._held.get(reservation_id)
        return held.reservation if held else self._ended.get(reservation_id)

    def held(self, reservation_id: str, etag: str = "") -> HeldReservation:
        """A HELD one; RESERVATION_NOT_FOUND, RESERVATION_EXPIRED, ILLEGAL_STATE or ETAG_MISMATCH otherwise."""
        reservation = self._known(reservation_id)
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
        return self._held[reservation_id]

    def get(self, reservation_id: str, now_s: float) -> Reservation:
        """HELD, or ended within the last hour; RESERVATION_NOT_FOUND otherwise."""
        self._forget(now_s)
        return self._known(reservation_id)

    def all_held(self, pool_id: str) -> Iterator[HeldReservation]:
        """The HELD ones of a pool, oldest first."""
        return (held for held in self._held.values() if held.reservation.pool_id == pool_id)

    def list(self, now_s: float) -> list[Reservation]:
        """All, newest first."""
        self._forget(now_s)
        everything = [*(held.reservation for held in self._held.values()), *self._ended.values()]
        return sorted(everything, key=lambda reservation: -reservation.sequence)

    def move(self, step: ClockStep) -> None:
        """Move the dates with the wall clock; the timers of the reservations do not depend on it."""
        for held in self._held.values():
            later = held.reservation.expire_time_s + step.delta_s
            held.reservation = msgspec.structs.replace(held.reservation, expire_time_s=later)
        for name, ended in self._ended.items():
            self._ended[name] = msgspec.structs.replace(ended, end_time_s=_end_s(ended) + step.delta_s)

    def _known(self, reservation_id: str) -> Reservation:
        reservation = self.find(reservation_id)
        if reservation is None:
            message = f"there is no reservation {reservation_id!r}; it was deleted, or ended more than an hour ago"
            raise NotFound(message, ErrorReason.RESERVATION_NOT_FOUND, reservation_id=reservation_id)
        return reservation

    def _etag(self) -> str:
        return f"{next(self._changes):x}"

    def _forget(self, now_s: float) -> None:
        while self._ended:
            oldest = next(iter(self._ended.values()))
            if len(self._ended) <= MAX_ENDED and _end_s(oldest) > now_s - LISTED_S:
                return
            del self._ended[oldest.id]


def _end_s(ended: Reservation) -> float:
    """When an ended reservation ended."""
    assert ended.end_time_s is not None
    return ended.end_time_s


def check_etag(reservation: Reservation, etag: str) -> None:
    """ETAG_MISMATCH if the reservation has another etag. An empty etag matches every reservation."""
    if etag and etag != reservation.etag:
        message = f"reservation {reservation.id} has changed since; list it again and retry"
        raise Aborted(message, ErrorReason.ETAG_MISMATCH, reservation_id=reservation.id, etag=reservation.etag)
