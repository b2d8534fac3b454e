"""The values of the log of changes: an event, and how long events are kept."""

import msgspec

from domains.failure import Failure
from domains.reasons import Domain, Severity


class SystemEvent(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One change of state of one thing."""

    domain: Domain
    """Who owns the thing that changed."""
    kind: str
    """`device.lost`; stable."""
    resource_id: str = ""
    """Empty: the server as a whole."""
    message: str = ""
    severity: Severity = Severity.INFO
    cause_sequence: int = 0
    """0: none."""
    failure: Failure | None = None
    instance_id: str = ""
    """The server instance in which it happened."""
    snapshot: object = None
    """The domain's value of the thing after the change, or a `StoredSnapshot` of it; None: it is gone."""


class StoredSnapshot(msgspec.Struct, frozen=True):
    """A domain's value of a thing, as the log stores it."""

    kind: str
    """Name of the value's type."""
    body: bytes


class EventBounds(msgspec.Struct, frozen=True, kw_only=True):
    """How much of the log is kept, in memory and on disk; the oldest events go first."""

    count: int = 10_000
    age_s: float = 7 * 24 * 3600
    size_bytes: int = 16 * 2**20
    """Of the rows on disk, without what SQLite adds."""
