"""An error as a value: stored in journals, and part of events and states."""

import msgspec

from domains.errors import DeviceOpsError, ErrorReason, Violation
from domains.reasons import NATURE_OF, Severity


class Failure(msgspec.Struct, frozen=True, kw_only=True):
    """The cause of an error, in the terms of the error tree."""

    reason: ErrorReason
    message: str
    facts: dict[str, str] = {}
    violations: tuple[Violation, ...] = ()
    actions_taken: tuple[str, ...] = ()
    """Actions that the server has already taken, in order."""
    root_cause: ErrorReason | None = None
    """The first failure in the chain that led here; None: this was the first."""
    state_consistent: bool = True
    """False: the state on disk differs (for now) from the published one."""
    retry_after_s: float | None = None
    """Seconds until the same request may work. None: not known."""
    lasting: bool = False
    """True: a retry was made already, and failed too."""

    @classmethod
    def of(cls, error: DeviceOpsError) -> "Failure":
        """The failure for an error."""
        return cls(
            reason=error.reason,
            message=error.message,
            facts=dict(error.facts),
            violations=error.violations,
            retry_after_s=error.retry_after_s,
        )

    @property
    def severity(self) -> Severity:
        """Severity of the failure."""
        return NATURE_OF[self.reason].severity

    @property
    def retryable(self) -> bool:
        """Whether the same request may succeed later; false if it needs more memory than there can be."""
        return NATURE_OF[self.reason].retryable and not (self.lasting or self._never_fits)

    @property
    def _never_fits(self) -> bool:
        needed = self.facts.get("needed_bytes", "")
        most = [self.facts.get(name, "") for name in ("ceiling_bytes", "total_bytes")]
        return needed.isdecimal() and any(bound.isdecimal() and int(needed) > int(bound) for bound in most)
