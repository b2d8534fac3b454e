"""Scans the model roots at the start, and again whenever files in them have changed."""

import asyncio
import threading
import time

import structlog

from domains.model.catalogue import Catalogue
from domains.model.roots import Roots
from domains.model.roots_look import FolderLook, RootsLook, look_at
from domains.model.scan import ScanReport

_BUSY = 0.05
"""Largest share of the time for looks: large or slow roots are looked at less often."""

_log = structlog.get_logger()


class RootsWatch:
    """Looks at sizes and times of files, and has the catalogue scan complete folders that are new, gone or changed.

    A folder whose files change between two looks is being written: it is scanned after the changes have ended.
    """

    def __init__(self, catalogue: Catalogue, roots: Roots) -> None:
        self._catalogue = catalogue
        self._roots = roots
        self._before: RootsLook | None = None
        self._judged: RootsLook | None = None
        """The folders as the last scan checked them. None: there was no scan."""
        self._look_s = 0.0
        """Seconds that the last look took, without a scan."""
        self._trouble = ""
        """Error of the last look; logged once."""

    async def keep_up(self, every_s: float) -> None:
        """Look periodically until cancelled. A failed look (a full disk) is retried at the next interval."""
        while True:
            try:
                await self.look(every_s)
                self._trouble = ""
            except Exception as error:
                if self._trouble != (trouble := repr(error)):
                    self._trouble = trouble
                    _log.exception("the model roots could not be scanned")
            await asyncio.sleep(max(every_s, self._look_s / _BUSY))

    async def look(self, settle_s: float) -> ScanReport | None:
        """Look once. Returns the report of a scan; None: no complete folder has changed."""
        now = await self._look()
        unsettled = now.unsettled(self._before, time.time(), settle_s)
        self._before = now
        wanted = RootsLook(folders=self._judged_then(now, unsettled), problems=now.problems)
        if wanted == self._judged:
            return None
        report = await self._catalogue.rescan_unasked(now.folders.keys() - unsettled)
        if not report.cancelled:
            self._judged = wanted
        _tell(report)
        return report

    async def _look(self) -> RootsLook:
        stop, begin = threading.Event(), time.monotonic()
        try:
            return await asyncio.to_thread(look_at, self._roots, stop.is_set)
        finally:
            stop.set()
            self._look_s = time.monotonic() - begin

    def _judged_then(self, now: RootsLook, unsettled: set[str]) -> dict[str, FolderLook]:
        """The folders as checked after a scan: an unsettled folder keeps its last look, if it has one."""
        old = self._judged.folders if self._judged else {}
        looks = {name: old.get(name) if name in unsettled else one for name, one in now.folders.items()}
        return {name: one for name, one in looks.items() if one is not None}


def _tell(report: ScanReport) -> None:
    changes = {"added": report.added, "changed": report.changed, "missing": report.missing}
    if any(changes.values()):
        _log.info("models have changed", **{name: list(ids) for name, ids in changes.items() if ids})
