"""The values of the log of changes: an event, and how long events are kept."""

import msgspec

from domains.failure import Failure
from domains.reasons import Domain, Severity


class SystemEvent(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One change of state of one thing."""

    domain: Domain
    """The domain that owns the changed thing."""
    kind: str
    """`device.lost`; stable."""
    resource_id: str = ""
    """Empty: the whole server."""
    message: str = ""
    severity: Severity = Severity.INFO
    cause_sequence: int = 0
    """0: none."""
    failure: Failure | None = None
    instance_id: str = ""
    """The server instance that recorded the event."""
    snapshot: object = None
    """The domain's value of the thing after the change, or a `StoredSnapshot` of it; None: the thing is gone."""


class StoredSnapshot(msgspec.Struct, frozen=True):
    """A domain's value of a thing, as the log stores it."""

    kind: str
    """Name of the value's type."""
    body: bytes


class EventBounds(msgspec.Struct, frozen=True, kw_only=True):
    """Limits of the log, in memory and on disk; the oldest events are dropped first."""

    count: int = 10_000
    age_s: float = 7 * 24 * 3600
    size_bytes: int = 16 * 2**20
    """Size of the rows on disk, without SQLite's overhead."""
