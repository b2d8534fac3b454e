"""Checkpoints of the state folder's database, on the writing connection.

SQLite 3.7.0 to 3.51.2 can lose commits when one connection checkpoints while another writes or checkpoints
(https://sqlite.org/wal.html#walresetbug). Here one connection does both, in turns, and no other connection is open during a
checkpoint. A checkpoint waits for the disk, so a thread makes it: the event loop waits only if it needs the database then.
"""

import asyncio
import sqlite3
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TypeVar

import structlog

from domains.descriptors import sync
from domains.errors import DeviceOpsError
from domains.failure import Failure
from domains.storage import DATABASE, Durability, durability, side_turn, storage_errors, storage_failed, turn_of
from domains.system_errors import system_error

DEGRADED_AFTER = 3
"""Number of failed checkpoints in a row after which the server reports that its storage fails."""
_SERIALIZED = 3
"""What `sqlite3.threadsafety` is where threads may share a connection."""
_RETRY_S = 1.0
"""Seconds to the next checkpoint after one that failed."""
_MENDED = ((3, 44, 6), (3, 50, 7))
"""The first version without the bug in the branches 3.44 and 3.50. From 3.51.3 on, every version is without it."""

Result = TypeVar("Result")

_log = structlog.get_logger()


def has_wal_reset_bug(version: tuple[int, ...] = sqlite3.sqlite_version_info) -> bool:
    """Whether this version of SQLite has the WAL-reset bug."""
    backported = any(version[:2] == mended[:2] and version >= mended for mended in _MENDED)
    return (3, 7, 0) <= version < (3, 51, 3) and not backported


class Checkpoints:
    """Moves the log into the database file periodically. Runs on one event loop: that of the connection."""

    def __init__(self, connection: sqlite3.Connection, folder: Path) -> None:
        self._connection = connection
        self._folder = folder
        self.durability: Durability = durability(connection)
        self.failed_in_a_row = 0
        self.failure: Failure | None = None
        """The failure of the last checkpoint. None: it succeeded."""
        self.listeners: list[Callable[[], None]] = []
        """Called when `failing` changes."""

    @property
    def failing(self) -> bool:
        """Whether so many checkpoints have failed in a row that an operator should look."""
        return self.failed_in_a_row >= DEGRADED_AFTER

    async def keep_up(self, every_s: float) -> None:
        """Checkpoint periodically, until cancelled."""
        while True:
            await asyncio.sleep(min(every_s, _RETRY_S) if self.failure else every_s)
            await self.once()

    async def once(self) -> None:
        """One checkpoint. A failure is recorded, and the next write reports it to its caller as well."""
        before = self.failing
        try:
            with storage_errors(self._folder):
                await asyncio.to_thread(sync_log, self._folder)
                await on_thread(checkpoint, self._connection)
        except Exception as error:
            # The system may have no thread for it. Whatever it is, the next checkpoint comes.
            self._failed(error)
        else:
            self.failed_in_a_row, self.failure = 0, None
        if self.failing != before:
            for tell in self.listeners:
                tell()

    def _failed(self, error: Exception) -> None:
        known = error if isinstance(error, DeviceOpsError) else system_error(error)
        known = known or storage_failed(self._folder, error)
        self.failed_in_a_row += 1
        self.failure = Failure.of(known)
        _log.warning("checkpoint failed", in_a_row=self.failed_in_a_row, problem=str(error))


async def on_thread(move: Callable[[sqlite3.Connection], Result], connection: sqlite3.Connection) -> Result:
    """The result of `checkpoint` or `truncate_log`, made by another thread. Raises `sqlite3.Error`."""
    if sqlite3.threadsafety == _SERIALIZED:
        try:
            return await asyncio.to_thread(move, connection)
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode != sqlite3.SQLITE_LOCKED:
                raise
    # The event loop had read some of a query's rows, which locks the tables. It leaves no query open when it waits.
    return move(connection)


def checkpoint(connection: sqlite3.Connection) -> None:
    """Move the log into the database file, unless another connection is open. Raises `sqlite3.Error`."""
    with side_turn(wait=False) as alone, turn_of(connection):
        if alone:
            connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()


def truncate_log(connection: sqlite3.Connection) -> bool:
    """Move the log into the database file and empty it, so that it keeps no deleted text. False: another connection is
    open. Raises `sqlite3.Error`."""
    with side_turn(wait=False) as alone, turn_of(connection):
        if not alone:
            return False
        (busy, *_) = connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
        return not busy


def sync_log(folder: Path) -> None:
    """Sync the log to the disk; do nothing if there is no log. Do not open the database file itself here: closing a
    descriptor of it drops SQLite's locks."""
    with suppress(FileNotFoundError):
        sync(folder / f"{DATABASE}-wal")
