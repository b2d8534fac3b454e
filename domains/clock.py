"""Compares the wall clock with a steady clock, so that nothing expires by a wrong date.

The wall clock can be wrong at a start (a board without a battery) and can step (NTP, an operator). Expiry times are stored
as dates. A step therefore moves these dates, and nothing expires until the date is confirmed: at a start with `trust_clock`,
by a call of an operator, or because both clocks agree for an hour.
"""

import asyncio
import math
import sqlite3
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import msgspec
import structlog

from domains.amounts import time_told
from domains.clock_store import ClockStamp, ClockStore
from domains.errors import DeviceOpsError
from domains.events import EventDomain, EventLog, Severity

STEP_S = 60.0
"""Largest difference between the two clocks that is no step."""
AGREE_S = 3600.0
"""How long both clocks must agree after a step."""
STAMP_S = 60.0
"""Interval of the stamps that the next start compares its clocks with."""
_LOOK_S = 10.0

_log = structlog.get_logger()


class Clocks(NamedTuple):
    """The clocks of a machine, as values."""

    wall: Callable[[], float]
    """Unix time."""
    steady: Callable[[], float]
    """Seconds without steps. Counts the time of a suspended machine where the system can (Linux, Windows)."""
    boot_id: str = ""
    """Changes with each start of the machine, which restarts the steady clock. Empty: not known."""


def system_clocks() -> Clocks:
    """The clocks of this machine."""
    steady, boot = time.monotonic, ""
    if sys.platform == "linux":
        boot_time = time.CLOCK_BOOTTIME
        steady, boot = (lambda: time.clock_gettime(boot_time)), boot_id()
    return Clocks(time.time, steady, boot)


def boot_id() -> str:
    """Changes with each start of the machine. Empty: not known (Linux alone tells it)."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text("ascii").strip()
    except OSError:
        return ""


class ClockStep(msgspec.Struct, frozen=True, kw_only=True):
    """A step of the wall clock, and which expiry times it moves."""

    delta_s: float
    from_s: float
    """Expiry times before this are not moved."""
    before_s: float = math.inf
    """Expiry times from this on are not moved."""

    def moved(self, expire_time_s: float | None) -> float | None:
        """The expiry time after the step."""
        moves = expire_time_s is not None and self.from_s <= expire_time_s < self.before_s
        return expire_time_s + self.delta_s if expire_time_s is not None and moves else expire_time_s


class ExpiryClock:
    """The time that expiry times are compared with: the wall clock, or −∞ while nothing may expire."""

    def __init__(self, wall: Callable[[], float] = time.time, *, held: bool = False) -> None:
        """`held`: whether nothing may expire until `ClockWatch.begin`, which decides whether the date can be trusted."""
        self._wall = wall
        self.held = held
        """Whether nothing may expire."""
        self.before: list[Callable[[], None]] = []
        """Called before each reading."""
        self.on_step: list[Callable[[ClockStep], None]] = []
        """Listeners: each step that moves expiry times, before anything can expire by the new date. Each moves all or none
        of its times; one that raises is called again."""

    def __call__(self) -> float:
        for look in self.before:
            look()
        return -math.inf if self.held else self._wall()


class ClockWatch:
    """Finds steps, and holds the expiry meanwhile. One event loop."""

    def __init__(
        self, events: EventLog, expiry: ExpiryClock, store: ClockStore, clocks: Clocks, *, trusted: bool = False
    ) -> None:
        """`trusted`: an operator says that the wall clock is right at this start."""
        self._events = events
        self._expiry = expiry
        self._store = store
        self._clocks = clocks
        self._trusted = trusted
        expiry.held = True
        expiry.on_step.append(lambda step: events.move_expiry(step.delta_s, step.from_s, step.before_s))
        self._owed: list[tuple[Callable[[ClockStep], None], ClockStep]] = []
        self.problem = ""
        """Why nothing expires, for people. Empty: the date is confirmed."""
        self._wall_s, self._steady_s = clocks.wall(), clocks.steady()
        self._since_s = self._steady_s
        self._stamped_s = -math.inf
        self._looking = False
        self._floor_s: float | None = None
        """The newest date that an earlier process stored, if its distance from now is unexplained; None: it is explained."""

    def is_date_doubtful(self) -> bool:
        """Whether dates of earlier processes say nothing about the time that has passed since."""
        return self._floor_s is not None

    @property
    def agreement_left_s(self) -> float | None:
        """Time for which both clocks must still agree until the date counts as right. None: it does."""
        return max(0.0, AGREE_S - (self._steady_s - self._since_s)) if self._expiry.held else None

    def confirm(self, cause: str = "") -> None:
        """Confirm the date, as an operator asks. Raises STORAGE_FULL; the date then stays unconfirmed."""
        self.look()
        if not self._expiry.held:
            return
        self._move()
        self._confirm(f"an operator confirmed the date{f' ({cause})' if cause else ''}")

    def begin(self) -> None:
        """Compare the clocks with the reading that the last process stored. Call this before anything expires."""
        self._expiry.held = False
        last, newest = self._store.load(), self._newest_event_s()
        if last is not None and not self._trusted:
            self._compare(last, max(last.wall_s, newest))
        elif newest and not self._trusted:
            self._explain_gap(newest)
        self._expiry.before.append(self.look)
        self._stamp()
        # Delete the events that expired while no server ran.
        self._events.flush(slack=0)

    def look(self) -> None:
        """Find a step since the last look."""
        if self._looking:
            # Moving expiry times can ask for the time of expiry again.
            return
        self._looking = True
        try:
            self._look()
        finally:
            self._looking = False

    def _look(self) -> None:
        wall_s, steady_s = self._clocks.wall(), self._clocks.steady()
        step_s = (wall_s - self._wall_s) - (steady_s - self._steady_s)
        self._wall_s, self._steady_s = wall_s, steady_s
        if abs(step_s) > STEP_S:
            self._stepped(step_s, wall_s - step_s)
            self._stamp()
            return
        self._try_to_move()
        if self._expiry.held and not self._owed and steady_s - self._since_s >= AGREE_S:
            self._confirm("both clocks agree for an hour")
        if steady_s - self._stamped_s >= STAMP_S:
            self._stamp()

    async def keep_looking(self) -> None:
        """Look periodically, until cancelled."""
        while True:
            await asyncio.sleep(_LOOK_S)
            try:
                self.look()
            except Exception:
                _log.exception("a bug ended a look at the clocks")

    def _compare(self, last: ClockStamp, newest_s: float) -> None:
        same_boot = last.boot_id and last.boot_id == self._clocks.boot_id and self._steady_s >= last.steady_s
        if not same_boot:
            self._explain_gap(newest_s)
        elif abs(step_s := self._wall_s - last.wall_s - (self._steady_s - last.steady_s)) > STEP_S:
            self._floor_s = last.floor_s
            self._stepped(step_s, self._wall_s - step_s)
        elif last.held:
            self._floor_s = last.floor_s
            self._hold("the date was not confirmed before this start")

    def _explain_gap(self, newest_s: float) -> None:
        """Between two boots, a time without the server cannot be told from a step."""
        gap_s = self._wall_s - newest_s
        if -STEP_S <= gap_s <= STEP_S + STAMP_S:
            return
        self._floor_s = newest_s
        if gap_s < 0:
            self._hold(f"the clock is {time_told(-gap_s)} behind the newest stored record")
            self._tell(Severity.WARNING)
        else:
            why = (
                f"the newest stored record is {time_told(gap_s)} old: the server was off, or the clock was set forward"
            )
            self._hold(why)
            self._tell(Severity.INFO)

    def _stepped(self, step_s: float, old_now_s: float) -> None:
        way = "forward" if step_s > 0 else "back"
        why = f"the clock went {way} by {time_told(abs(step_s))}"
        self._hold(why)
        if (step := self._step(step_s, old_now_s)) is not None:
            self._owed += [(listener, step) for listener in self._expiry.on_step]
        # Before the event of the step, which has the new date.
        self._try_to_move()
        self._tell(Severity.WARNING)

    def _try_to_move(self) -> None:
        """Move the expiry times. If the disk is full, the next look tries again; until then nothing expires."""
        try:
            self._move()
        except (DeviceOpsError, sqlite3.Error) as problem:
            _log.warning("expiry times could not be moved with the clock", problem=str(problem))

    def _move(self) -> None:
        while self._owed:
            listener, step = self._owed[0]
            listener(step)
            del self._owed[0]

    def _step(self, step_s: float, old_now_s: float) -> ClockStep | None:
        """The expiry times that move with a step. None: none do."""
        if self._floor_s is None:
            return ClockStep(delta_s=step_s, from_s=old_now_s)
        if step_s < 0:
            # Earlier processes may have stored right dates: without an explanation, no expiry moves to an earlier date.
            return None
        if self._floor_s > old_now_s:
            # The clock was behind: its dates lie before those of earlier processes.
            return ClockStep(delta_s=step_s, from_s=-math.inf, before_s=self._floor_s)
        return ClockStep(delta_s=step_s, from_s=old_now_s)

    def _tell(self, severity: Severity) -> None:
        self._events.tell(EventDomain.PROCESSING, "system.clock_stepped", message=self.problem, severity=severity)

    def _hold(self, why: str) -> None:
        self.problem = f"{why}; nothing expires until both clocks agree for an hour; ConfirmClock ends it at once"
        self._expiry.held, self._since_s = True, self._steady_s
        _log.warning("expiry is held", why=why)

    def _confirm(self, why: str) -> None:
        self._expiry.held, self.problem, self._floor_s = False, "", None
        message = f"{why}: the date counts as right, and what is kept for a time expires again"
        self._events.tell(EventDomain.PROCESSING, "system.clock_confirmed", message=message)
        self._stamp()

    def _newest_event_s(self) -> float:
        return max((entry.time_s for entry in self._events.journal.after(0)), default=0.0)

    def _stamp(self) -> None:
        self._stamped_s = self._steady_s
        stamp = ClockStamp(
            wall_s=self._wall_s,
            steady_s=self._steady_s,
            boot_id=self._clocks.boot_id,
            held=self._expiry.held,
            floor_s=self._floor_s,
        )
        self._store.save(stamp)
