"""What can be measured and set on a device through its driver: the protocol of every backend's telemetry."""

import time
from collections.abc import Mapping
from typing import Protocol

import msgspec

from domains.device.device import Backend, Device
from domains.device.sample import DeviceSample
from domains.errors import Aborted, ErrorReason, InvalidRequest, NotSupported, Violation

ALWAYS = ("enabled", "draining", "goal", "max_concurrent_jobs")
"""Fields of DeviceSettings that need no driver, so that every device has them."""


class PowerRange(msgspec.Struct, frozen=True, kw_only=True):
    """Power limits that the driver accepts."""

    least_watts: float
    most_watts: float
    default_watts: float | None
    """The driver's default limit. Absent: unknown."""


class DeviceGone(Aborted):
    """The driver reports that the device is gone."""

    default_reason = ErrorReason.DEVICE_LOST


class Telemetry(Protocol):
    """Driver calls of one backend. The calls block; `threaded_telemetry.ThreadedTelemetry` makes them from an event loop."""

    def sample(self, device: Device) -> DeviceSample:
        """Measure now. Figures that cannot be measured are absent. Raises only DeviceGone."""
        ...

    def controls(self, device: Device) -> tuple[str, ...]:
        """Names of the DeviceSettings fields that can be changed on the device, found by trial."""
        ...

    def power_range(self, device: Device) -> PowerRange | None:
        """Power limits that the device accepts. None: it accepts none."""
        ...

    def set_power_limit(self, device: Device, watts: float | None) -> None:
        """Set the power limit; None: the driver's default. If it fails, the former limit holds.

        Raises INVALID_FIELD outside the range, NOT_SUPPORTED_ON_DEVICE, DRIVER_ERROR if the driver refuses, DEVICE_LOST.
        """
        ...

    def restore(self, device: Device) -> None:
        """Restore the limits from before the server's first change, if there was one. Raises as `set_power_limit`."""
        ...


class NoTelemetry:
    """Telemetry of a device whose driver reports nothing."""

    def sample(self, device: Device) -> DeviceSample:
        """A sample without figures."""
        return DeviceSample(time_s=time.time())

    def controls(self, device: Device) -> tuple[str, ...]:
        """Settings that need no driver."""
        return ALWAYS

    def power_range(self, device: Device) -> PowerRange | None:
        """None: the device accepts no limit."""
        return None

    def set_power_limit(self, device: Device, watts: float | None) -> None:
        """Raises NOT_SUPPORTED_ON_DEVICE."""
        raise no_power_limit(device)

    def restore(self, device: Device) -> None:
        """Nothing to restore."""


class TelemetryByBackend:
    """Passes each call to the telemetry of the device's backend; a backend without one has `NoTelemetry`."""

    def __init__(self, backends: Mapping[Backend, Telemetry]) -> None:
        self._backends = backends
        self._nothing = NoTelemetry()

    def of(self, device: Device) -> Telemetry:
        """The telemetry of the device's backend."""
        return self._backends.get(device.backend, self._nothing)

    def sample(self, device: Device) -> DeviceSample:
        """Measure now; see `Telemetry.sample`."""
        return self.of(device).sample(device)

    def controls(self, device: Device) -> tuple[str, ...]:
        """See `Telemetry.controls`."""
        return self.of(device).controls(device)

    def power_range(self, device: Device) -> PowerRange | None:
        """See `Telemetry.power_range`."""
        return self.of(device).power_range(device)

    def set_power_limit(self, device: Device, watts: float | None) -> None:
        """See `Telemetry.set_power_limit`."""
        self.of(device).set_power_limit(device, watts)

    def restore(self, device: Device) -> None:
        """See `Telemetry.restore`."""
        self.of(device).restore(device)


def no_power_limit(device: Device) -> NotSupported:
    """The error for a device whose power cannot be limited."""
    message = f"the power of {device.display_name} ({device.id}) cannot be limited: its driver has no such control"
    return NotSupported(message, ErrorReason.NOT_SUPPORTED_ON_DEVICE, device_id=device.id, setting="power_limit_watts")


def check_power(device: Device, watts: float, allowed: PowerRange) -> None:
    """Raise INVALID_FIELD for a limit outside the range."""
    if not allowed.least_watts <= watts <= allowed.most_watts:
        span = f"{allowed.least_watts:g}..{allowed.most_watts:g}"
        message = f"{watts:g} W is outside what the driver of {device.id} allows; choose {span} W"
        raise InvalidRequest([Violation(field="settings.power_limit_watts", message=message, allowed=span)])
