"""Removes the text of deleted jobs from the write-ahead log.

`secure_delete` overwrites deleted rows in the pages of the database, but the log keeps earlier versions of these pages
until it is truncated.
"""

import asyncio
from pathlib import Path

import structlog

from domains.storage import truncate_log

_log = structlog.get_logger()


class Erasure:
    """Truncates the log off the event loop. Deletions that wait together share one truncation."""

    def __init__(self, folder: Path) -> None:
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
            if await asyncio.to_thread(truncate_log, self._folder):
                self._erased = covered
            else:
                _log.warning("the log of the database could not be truncated and keeps deleted text for now")
