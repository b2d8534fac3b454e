"""The values of a reservation: bytes of a pool that are kept free for later work."""

from enum import IntEnum, StrEnum

import msgspec

from domains.errors import InvalidRequest, Violation
from domains.labels import has_all, label_violations

DEFAULT_LIVE_S = 60.0
MAX_LIVE_S = 3600.0
MAX_WAIT_S = 600.0
MAX_PURPOSE = 255
MAX_BYTES = 2**63 - 1


class Priority(IntEnum):
    """The priorities, with the numbers of the contract."""

    LOW = 1
    NORMAL = 2
    HIGH = 3
    CRITICAL = 4


class ReservationState(StrEnum):
    """The state of a reservation. All but HELD are final."""

    HELD = "held"
    COMMITTED = "committed"
    EXPIRED = "expired"
    PREEMPTED = "preempted"
    LOST = "lost"


class Reservation(msgspec.Struct, frozen=True, kw_only=True):
    """One reservation."""

    id: str
    pool_id: str
    size_bytes: int
    purpose: str
    priority: Priority
    state: ReservationState
    session_id: str
    """The session whose quota the reservation counts against. Empty: none."""
    create_time_s: float
    """Unix time."""
    expire_time_s: float
    etag: str
    """Changes with every renewal and every change of state."""
    sequence: int
    """Rises with each new reservation; the sort key of lists."""
    consumer_id: str = ""
    """The job, loaded model or blob that used the reservation up. Empty unless COMMITTED."""
    end_time_s: float | None = None
    """None while HELD."""
    labels: tuple[tuple[str, str], ...] = ()


class ReservationAsk(msgspec.Struct, frozen=True, kw_only=True):
    """A request for a reservation. The constructor raises InvalidRequest with all violations, in the contract's names."""

    pool_id: str
    """Id or alias of the pool."""
    size_bytes: int
    purpose: str = ""
    priority: Priority = Priority.NORMAL
    live_s: float = DEFAULT_LIVE_S
    allow_eviction: bool = False
    """Whether idle models may be unloaded to make room."""
    wait_s: float = 0.0
    """The longest wait for room."""
    session_id: str = ""
    labels: tuple[tuple[str, str], ...] = ()

    def __post_init__(self) -> None:
        wrong = [*wrong_size(self.size_bytes), *wrong_live(self.live_s)]
        if not 0 <= self.wait_s <= MAX_WAIT_S:
            text = f"{self.wait_s} s is not within 0 s..10 min"
            wrong.append(Violation(field="wait_timeout", message=text, allowed="0 s..10 min"))
        if len(self.purpose) > MAX_PURPOSE:
            text = f"has {len(self.purpose)} characters, at most {MAX_PURPOSE} are allowed"
            wrong.append(Violation(field="purpose", message=text, allowed=f"0..{MAX_PURPOSE} characters"))
        wrong += label_violations(self.labels, "labels")
        if wrong:
            raise InvalidRequest(wrong)


def wrong_size(size_bytes: int) -> list[Violation]:
    """What is wrong with a size."""
    if 1 <= size_bytes <= MAX_BYTES:
        return []
    allowed = f"1..{MAX_BYTES}"
    return [Violation(field="size_bytes", message=f"{size_bytes} is not within {allowed}", allowed=allowed)]


def wrong_live(live_s: float) -> list[Violation]:
    """The violations of a time to live."""
    if 1 <= live_s <= MAX_LIVE_S:
        return []
    return [Violation(field="time_to_live", message=f"{live_s} s is not within 1 s..1 h", allowed="1 s..1 h")]


class ReservationWanted(msgspec.Struct, frozen=True, kw_only=True):
    """A filter. Every field that is set must fit, and any one value of a tuple or set."""

    states: tuple[ReservationState, ...] = ()
    """Empty: HELD only."""
    pool_ids: frozenset[str] = frozenset()
    session_id: str = ""
    labels: tuple[tuple[str, str], ...] = ()

    def fits(self, reservation: Reservation) -> bool:
        """Whether the reservation passes the filter."""
        return (
            reservation.state in (self.states or (ReservationState.HELD,))
            and (not self.pool_ids or reservation.pool_id in self.pool_ids)
            and (not self.session_id or reservation.session_id == self.session_id)
            and has_all(self.labels, reservation.labels)
        )
