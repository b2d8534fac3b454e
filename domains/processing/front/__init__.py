"""The work that the front process carries out by itself, one module a kind.

task.py      one attempt, as its runner sees it
scan.py      a scan for models
reset.py     a reset of a device
transfer.py  a transfer of a blob
"""

from collections.abc import Awaitable, Callable

import msgspec

from domains.processing.attempts.front_task import FrontTask
from domains.processing.jobs.kinds import ResetWork, ScanWork, TransferWork
from domains.processing.jobs.left import Done, Halted

__all__ = ["FrontRunners", "FrontTask"]


class FrontRunners(msgspec.Struct, frozen=True, kw_only=True):
    """Who carries out which kind."""

    scan: Callable[[ScanWork, FrontTask], Awaitable[Done | Halted]]
    reset: Callable[[ResetWork, FrontTask], Awaitable[Done | Halted]]
    transfer: Callable[[TransferWork, FrontTask], Awaitable[Done | Halted]]
