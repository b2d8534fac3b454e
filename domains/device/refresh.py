"""What a look for hardware found."""

import msgspec

from domains.device.device import Backend
from domains.failure import Failure


class BackendFailure(msgspec.Struct, frozen=True, kw_only=True):
    """A backend that could not be asked; its devices stay as they were."""

    backend: Backend
    failure: Failure
    time_s: float


class Refreshed(msgspec.Struct, frozen=True, kw_only=True):
    """What is other than before; ids."""

    added: tuple[str, ...] = ()
    changed: tuple[str, ...] = ()
    lost: tuple[str, ...] = ()
    returned: tuple[str, ...] = ()
    failures: tuple[BackendFailure, ...] = ()
    duration_s: float = 0.0
