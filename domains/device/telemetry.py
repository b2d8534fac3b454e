"""What can be measured and set on a device through its driver: what every backend's telemetry answers."""

import time
from collections.abc import Mapping
from typing import Protocol

import msgspec

from domains.device.device import Backend, Device
from domains.device.sample import DeviceSample
from domains.errors import Aborted, ErrorReason, InvalidRequest, NotSupported, Violation

ALWAYS = ("enabled", "draining", "goal", "max_concurrent_jobs")
"""Fields of DeviceSettings that this server itself keeps to, so that every device has them."""


class PowerRange(msgspec.Struct, frozen=True, kw_only=True):
    """What the driver accepts as a power limit."""

    least_watts: float
    most_watts: float
    default_watts: float | None
    """What the driver goes back to. Absent: it does not tell."""


class DeviceGone(Aborted):
    """The driver says that the device is not there any more."""

    default_reason = ErrorReason.DEVICE_LOST


class Telemetry(Protocol):
    """Asks a driver. The calls block; `threaded_telemetry.ThreadedTelemetry` makes them from an event loop."""

    def sample(self, device: Device) -> DeviceSample:
        """How it is now. What cannot be measured is absent. Raises only DeviceGone."""
        ...

    def controls(self, device: Device) -> tuple[str, ...]:
        """Names of the fields of DeviceSettings that can be changed on it, found by trying."""
        ...

    def power_range(self, device: Device) -> PowerRange | None:
        """The power limits that it takes. None: it takes none."""
        ...

    def set_power_limit(self, device: Device, watts: float | None) -> None:
        """Set the power limit; None: the driver's default. The old limit holds if it fails.

        Raises INVALID_FIELD outside the range, NOT_SUPPORTED_ON_DEVICE, DRIVER_ERROR where the driver refuses, DEVICE_LOST.
        """
        ...

    def restore(self, device: Device) -> None:
        """Put back the limits that held before our first change; nothing if we made none. Raises as `set_power_limit`."""
        ...


class NoTelemetry:
    """For a device whose driver tells nothing."""

    def sample(self, device: Device) -> DeviceSample:
        """Nothing but the time."""
        return DeviceSample(time_s=time.time())

    def controls(self, device: Device) -> tuple[str, ...]:
        """What needs no driver."""
        return ALWAYS

    def power_range(self, device: Device) -> PowerRange | None:
        """None."""
        return None

    def set_power_limit(self, device: Device, watts: float | None) -> None:
        """NOT_SUPPORTED_ON_DEVICE."""
        raise no_power_limit(device)

    def restore(self, device: Device) -> None:
        """Nothing was changed."""


class TelemetryByBackend:
    """Each device by the telemetry of its backend; a backend without one tells nothing."""

    def __init__(self, backends: Mapping[Backend, Telemetry]) -> None:
        self._backends = backends
        self._nothing = NoTelemetry()

    def of(self, device: Device) -> Telemetry:
        """The one that speaks for it."""
        return self._backends.get(device.backend, self._nothing)

    def sample(self, device: Device) -> DeviceSample:
        """As its backend tells."""
        return self.of(device).sample(device)

    def controls(self, device: Device) -> tuple[str, ...]:
        """As its backend tells."""
        return self.of(device).controls(device)

    def power_range(self, device: Device) -> PowerRange | None:
        """As its backend tells."""
        return self.of(device).power_range(device)

    def set_power_limit(self, device: Device, watts: float | None) -> None:
        """As its backend does."""
        self.of(device).set_power_limit(device, watts)

    def restore(self, device: Device) -> None:
        """As its backend does."""
        self.of(device).restore(device)


def no_power_limit(device: Device) -> NotSupported:
    """The refusal of a device whose power cannot be limited."""
    message = f"the power of {device.display_name} ({device.id}) cannot be limited: its driver has no such control"
    return NotSupported(message, ErrorReason.NOT_SUPPORTED_ON_DEVICE, device_id=device.id, setting="power_limit_watts")


def check_power(device: Device, watts: float, allowed: PowerRange) -> None:
    """Refuse a limit outside the range."""
    if not allowed.least_watts <= watts <= allowed.most_watts:
        span = f"{allowed.least_watts:g}..{allowed.most_watts:g}"
        message = f"{watts:g} W is outside what the driver of {device.id} allows; choose {span} W"
        raise InvalidRequest([Violation(field="settings.power_limit_watts", message=message, allowed=span)])
