"""Figures of a device at one moment, from its driver. What cannot be measured is absent."""

from enum import StrEnum

import msgspec


class ThrottleReason(StrEnum):
    """Why a device runs below its full clock."""

    IDLE = "idle"
    POWER_LIMIT = "power_limit"
    TEMPERATURE = "temperature"
    HARDWARE_PROTECTION = "hardware_protection"
    CLOCK_LIMIT = "clock_limit"
    OTHER = "other"


class DeviceSample(msgspec.Struct, frozen=True, kw_only=True):
    """One sample. Fields are named as in the contract's DeviceStatus, so that `telemetry` can list them."""

    time_s: float
    """Unix time."""
    utilization_ratio: float | None = None
    memory_activity_ratio: float | None = None
    used_memory_bytes: int | None = None
    """Memory used by all processes."""
    total_memory_bytes: int | None = None
    temperature_celsius: float | None = None
    memory_temperature_celsius: float | None = None
    power_watts: float | None = None
    power_limit_watts: float | None = None
    clock_mhz: int | None = None
    memory_clock_mhz: int | None = None
    fan_speed_fraction: float | None = None
    throttle_reasons: tuple[ThrottleReason, ...] = ()

    @property
    def telemetry(self) -> tuple[str, ...]:
        """Names of the measured figures."""
        names = (name for name in self.__struct_fields__ if name not in ("time_s", "throttle_reasons"))
        return tuple(name for name in names if getattr(self, name) is not None)
