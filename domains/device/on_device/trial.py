"""Input and result of one check of a device."""

from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor

from domains.device.health import Verdict
from domains.device.on_device.free_memory import free_bytes
from domains.measurement import Measurement
from domains.stop import never


class CheckStopped(Exception):
    """The check was stopped between two pieces of work."""


def unchanged(result: Tensor) -> Tensor:
    """The result as the device returned it."""
    return result


@dataclass(frozen=True, kw_only=True)
class Trial:
    """Input of a check: the device, the stop signal, and the simulated device's interventions."""

    device: torch.device
    stop: Callable[[], bool] = never
    corrupt: Callable[[Tensor], Tensor] = unchanged
    """Applied to each tensor that returns from the device before it is compared: the simulated device injects wrong results.

    Copies are uint8, memory patterns int64, computed results floats.
    """

    room: Callable[[], int | None] = lambda: None
    """Free memory that a simulated device's script allows; None: no limit but the driver's."""

    def free_bytes(self) -> int:
        """Memory that can be allocated on the device."""
        limit = self.room()
        return free_bytes(self.device) if limit is None else min(limit, free_bytes(self.device))

    def raise_if_stopped(self) -> None:
        """Raise CheckStopped if the check is to stop. Called between two pieces of work."""
        if self.stop():
            raise CheckStopped


@dataclass(frozen=True, kw_only=True)
class CheckResult:
    """Result of a check."""

    verdict: Verdict
    message: str
    measurements: tuple[Measurement, ...] = field(default=())


def seconds(name: str, value: float) -> Measurement:
    """A time in seconds."""
    return Measurement(name=name, value=value, unit="s")


def size(name: str, value: int) -> Measurement:
    """An amount of memory, in bytes."""
    return Measurement(name=name, value=float(value), unit="By")


def rate(name: str, size_bytes: int, duration_s: float) -> Measurement:
    """A rate in bytes per second."""
    return Measurement(name=name, value=size_bytes / duration_s, unit="By/s")
