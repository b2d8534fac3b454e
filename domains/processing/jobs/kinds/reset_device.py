"""Bring a device back to a clean state."""

from collections.abc import Awaitable
from typing import TYPE_CHECKING, ClassVar

from domains.processing.jobs.kinds.entry import PlainWork
from domains.reasons import Domain

if TYPE_CHECKING:
    from domains.processing.attempts.front_task import FrontRunners, FrontTask
    from domains.processing.jobs.outcome import Done, Halted


class ResetWork(PlainWork, frozen=True, kw_only=True, tag="reset_device"):
    """Bring a device back to a clean state. Implements `FrontKind`."""

    domain: ClassVar[Domain] = Domain.DEVICE
    at_once: ClassVar[int] = 16

    device_id: str
    process: bool = True
    """True: end the worker process. False: only free the memory that it holds."""
    drain_timeout_s: float = 30.0
    force: bool = False

    @property
    def summary(self) -> str:
        """Names the device."""
        return f"reset {self.device_id}"

    @property
    def subject_device_id(self) -> str:
        """The device that is reset."""
        return self.device_id

    def begin(self, runners: "FrontRunners", task: "FrontTask") -> "Awaitable[Done | Halted]":
        """Run the reset."""
        return runners.reset(self, task)
