"""Power limits from before this server changed them, in the state folder, so that a server restores them after a crash."""

import sqlite3
import threading
from contextlib import AbstractContextManager
from pathlib import Path

from domains.storage import second_connection, transaction


class OriginalLimits:
    """Stores the original limit of each device by id, in milliwatts (NVML's unit). Thread-safe."""

    def __init__(self, folder: Path | None = None) -> None:
        """`folder` None: keep the limits in memory only."""
        self._folder = folder
        self._before_mw: dict[str, int] = {}
        self._lock = threading.Lock()
        if folder is not None:
            with self._open(folder) as database:
                self._before_mw = dict(database.execute("SELECT device_id, milliwatts FROM power_limits"))

    def before(self, device_id: str) -> int | None:
        """The limit before the first change; None: no change was made."""
        return self._before_mw.get(device_id)

    def note(self, device_id: str, milliwatts: int) -> bool:
        """Record the limit before a change; returns whether it is the first change. Raises STORAGE_FULL."""
        with self._lock:
            first = device_id not in self._before_mw
            if first:
                self._write("INSERT INTO power_limits (device_id, milliwatts) VALUES (?, ?)", device_id, milliwatts)
                self._before_mw[device_id] = milliwatts
            return first

    def forget(self, device_id: str) -> None:
        """Remove the record: the limit was restored. Raises STORAGE_FULL."""
        with self._lock:
            self._write("DELETE FROM power_limits WHERE device_id = ?", device_id)
            self._before_mw.pop(device_id, None)

    def _write(self, statement: str, *values: object) -> None:
        if self._folder is not None:
            with self._open(self._folder) as database, transaction(database, self._folder) as db:
                db.execute(statement, values)

    @staticmethod
    def _open(folder: Path) -> AbstractContextManager[sqlite3.Connection]:
        # Limits change rarely, and on the driver's thread: each change opens its own connection.
        return second_connection(folder)
