"""Result of a scan for hardware (RefreshDevices)."""

import msgspec

from domains.device.device import Backend
from domains.failure import Failure


class BackendFailure(msgspec.Struct, frozen=True, kw_only=True):
    """A backend that could not list its devices; their state is unchanged."""

    backend: Backend
    failure: Failure
    time_s: float


class Refreshed(msgspec.Struct, frozen=True, kw_only=True):
    """Changes that the scan found, as ids of devices."""

    added: tuple[str, ...] = ()
    changed: tuple[str, ...] = ()
    lost: tuple[str, ...] = ()
    returned: tuple[str, ...] = ()
    failures: tuple[BackendFailure, ...] = ()
    duration_s: float = 0.0
