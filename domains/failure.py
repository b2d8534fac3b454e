"""An error as a value: stored in journals, told in events and states."""

import msgspec

from domains.errors import DeviceOpsError, ErrorReason, InvalidRequest, Violation


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

    @classmethod
    def of(cls, error: DeviceOpsError) -> "Failure":
        """The failure that an error amounts to."""
        violations = error.violations if isinstance(error, InvalidRequest) else ()
        return cls(reason=error.reason, message=error.message, facts=dict(error.facts), violations=violations)
