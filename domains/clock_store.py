"""The newest reading of the clocks on disk, which the next start compares its clocks with."""

import sqlite3
from pathlib import Path

import msgspec
import structlog

from domains.errors import DeviceOpsError
from domains.storage import storage_errors, transaction

_log = structlog.get_logger()
_COLUMNS = "wall_s, steady_s, boot_id, held, floor_s"


class ClockStamp(msgspec.Struct, frozen=True, kw_only=True):
    """Both clocks at one moment, and what was known of them."""

    wall_s: float
    steady_s: float
    boot_id: str
    held: bool = False
    """Whether the expiry was held: the date was not confirmed."""
    floor_s: float | None = None
    """See `ClockWatch`."""


class ClockStore:
    """One row in the state folder's database."""

    def __init__(self, connection: sqlite3.Connection, folder: Path) -> None:
        self._db = connection
        self._folder = folder

    def load(self) -> ClockStamp | None:
        """The newest reading of earlier servers. None: there is none."""
        with storage_errors(self._folder):
            row = self._db.execute(f"SELECT {_COLUMNS} FROM clock").fetchone()
        if row is None:
            return None
        wall_s, steady_s, boot_id, held, floor_s = row
        return ClockStamp(wall_s=wall_s, steady_s=steady_s, boot_id=boot_id, held=bool(held), floor_s=floor_s)

    def save(self, stamp: ClockStamp) -> None:
        """Replace the reading. A full disk keeps the former one, and the next start then sees an older reading."""
        try:
            with transaction(self._db, self._folder) as db:
                db.execute("DELETE FROM clock")
                db.execute(f"INSERT INTO clock ({_COLUMNS}) VALUES (?, ?, ?, ?, ?)", msgspec.structs.astuple(stamp))
        except (DeviceOpsError, sqlite3.Error) as problem:
            _log.warning("the clocks could not be stored", problem=str(problem))
