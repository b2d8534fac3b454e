"""An error as a value: stored in journals, told in events and states."""

import msgspec

from domains.errors import DeviceOpsError, ErrorReason, Violation
from domains.reasons import NATURE_OF, Severity


class Failure(msgspec.Struct, frozen=True, kw_only=True):
    """Why something went wrong, in the words of the error tree."""

    reason: ErrorReason
    message: str
    facts: dict[str, str] = {}
    violations: tuple[Violation, ...] = ()
    actions_taken: tuple[str, ...] = ()
    """What the server has done about it already, in order."""
    root_cause: ErrorReason | None = None
    """The first failure in the chain that led here; None: this was the first."""
    state_consistent: bool = True
    """False: what is on disk is not (yet) what was told."""
    retry_after_s: float | None = None
    """When the same request may work. None: that is not known."""
    lasting: bool = False
    """True: it was tried again already, and failed again."""

    @classmethod
    def of(cls, error: DeviceOpsError) -> "Failure":
        """The failure that an error amounts to."""
        return cls(
            reason=error.reason,
            message=error.message,
            facts=dict(error.facts),
            violations=error.violations,
            retry_after_s=error.retry_after_s,
        )

    @property
    def severity(self) -> Severity:
        """How much it matters."""
        return NATURE_OF[self.reason].severity

    @property
    def retryable(self) -> bool:
        """Whether the same request may succeed later: not one that needs more memory than there will ever be."""
        return NATURE_OF[self.reason].retryable and not (self.lasting or self._never_fits)

    @property
    def _never_fits(self) -> bool:
        needed = self.facts.get("needed_bytes", "")
        most = [self.facts.get(name, "") for name in ("ceiling_bytes", "total_bytes")]
        return needed.isdecimal() and any(bound.isdecimal() and int(needed) > int(bound) for bound in most)
