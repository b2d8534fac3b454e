"""Removes the text of deleted jobs from the write-ahead log.

`secure_delete` overwrites deleted rows in the pages of the database, but the log keeps earlier versions of these pages
until it is truncated.
"""

import asyncio
import sqlite3
from pathlib import Path

import structlog

from domains.checkpoints import on_thread, sync_log, truncate_log
from domains.system_errors import system_error

_log = structlog.get_logger()


class Erasure:
    """Truncates the log on the writing connection. Deletions that wait together share one truncation."""

    def __init__(self, connection: sqlite3.Connection, folder: Path) -> None:
        self._connection = connection
        self._folder = folder
        self._turn = asyncio.Lock()
        self._asked = 0
        self._erased = 0

    async def complete(self) -> None:
        """Return when the log holds nothing that was deleted before the call. A failure is logged; the next deletion
        tries again."""
        self._asked += 1
        mine = self._asked
        async with self._turn:
            if self._erased >= mine:
                return
            covered = self._asked
            if await self._truncated():
                self._erased = covered
            else:
                _log.warning("the log of the database could not be truncated and keeps deleted text for now")

    async def _truncated(self) -> bool:
        try:
            # The log reaches the disk before the truncation, which transactions wait for.
            await asyncio.to_thread(sync_log, self._folder)
            return await on_thread(truncate_log, self._connection)
        except Exception as error:
            if not isinstance(error, sqlite3.Error | OSError) and system_error(error) is None:
                raise
            return False
