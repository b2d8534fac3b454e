"""Look for models in the configured roots."""

from collections.abc import Awaitable
from typing import TYPE_CHECKING, ClassVar

from domains.processing.jobs.kinds.entry import PlainWork
from domains.reasons import Domain

if TYPE_CHECKING:
    from domains.processing.attempts.front_task import FrontRunners, FrontTask
    from domains.processing.jobs.outcome import Done, Halted


class ScanWork(PlainWork, frozen=True, kw_only=True, tag="scan_models"):
    """Look for models in the configured roots. Implements `FrontKind`."""

    domain: ClassVar[Domain] = Domain.MODEL
    at_once: ClassVar[int] = 1

    roots: tuple[str, ...] = ()
    """Empty: all configured roots."""
    recompute: bool = False
    """Hash every file again, and single files too."""

    @property
    def summary(self) -> str:
        """Names the roots."""
        return f"scan {', '.join(self.roots) or 'all model roots'}"

    def begin(self, runners: "FrontRunners", task: "FrontTask") -> "Awaitable[Done | Halted]":
        """Run the scan."""
        return runners.scan(self, task)
