"""One try of one thing on a device: what each check is given, and what it says."""

from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor

from domains.device.health import Verdict
from domains.device.on_device.free_memory import free_bytes
from domains.measurement import Measurement


class CheckStopped(Exception):
    """The check was asked to end, and did so between two pieces."""


def unchanged(result: Tensor) -> Tensor:
    """What comes back from a device that is not made to fail."""
    return result


@dataclass(frozen=True, kw_only=True)
class Trial:
    """Where to try, and who may interfere."""

    device: torch.device
    stop: Callable[[], bool] = lambda: False
    corrupt: Callable[[Tensor], Tensor] = unchanged
    """Applied to each tensor that comes back before it is compared: the simulated device makes wrong results with it.

    Copies are uint8, memory patterns int64, computed results floats.
    """

    room: Callable[[], int | None] = lambda: None
    """Bytes that can still be taken, where somebody knows better than the driver: a simulated device's script."""

    def free_bytes(self) -> int:
        """What can still be taken on the device."""
        told = self.room()
        return free_bytes(self.device) if told is None else min(told, free_bytes(self.device))

    def raise_if_stopped(self) -> None:
        """Between two pieces of work. Raises CheckStopped."""
        if self.stop():
            raise CheckStopped


@dataclass(frozen=True, kw_only=True)
class CheckResult:
    """What a check found."""

    verdict: Verdict
    message: str
    measurements: tuple[Measurement, ...] = field(default=())


def seconds(name: str, value: float) -> Measurement:
    """A time."""
    return Measurement(name=name, value=value, unit="s")


def size(name: str, value: int) -> Measurement:
    """An amount of memory, in bytes."""
    return Measurement(name=name, value=float(value), unit="By")


def rate(name: str, size_bytes: int, duration_s: float) -> Measurement:
    """Bytes a second."""
    return Measurement(name=name, value=size_bytes / duration_s, unit="By/s")
