"""Settings of a device that callers choose. They last until the server stops."""

from collections.abc import Collection, Iterator, Sequence
from enum import StrEnum

import msgspec

from domains.errors import ErrorReason, InvalidRequest, NotSupported, Violation

MAX_TEMPERATURE_CELSIUS = (40.0, 110.0)
"""Range in the contract."""


class DeviceGoal(StrEnum):
    """What to optimize for where the server has a choice."""

    BALANCED = "balanced"
    LATENCY = "latency"
    THROUGHPUT = "throughput"
    MEMORY = "memory"
    POWER = "power"


class DeviceSettings(msgspec.Struct, frozen=True, kw_only=True):
    """All settings of one device. Fields are named as in the contract, for update masks."""

    enabled: bool = True
    """Whether the device takes jobs at all."""
    draining: bool = False
    """Whether the device only finishes its running jobs."""
    goal: DeviceGoal = DeviceGoal.BALANCED
    power_limit_watts: float | None = None
    """None: the driver's default."""
    max_concurrent_jobs: int | None = None
    """None: the device's capacity."""
    max_temperature_celsius: float | None = None
    """Above this the device is DEGRADED, until it is 5 degrees cooler. None: only the driver's own limit applies."""


def changed(
    settings: DeviceSettings,
    new: DeviceSettings,
    mask: Sequence[str],
    controls: Collection[str],
    power_range: tuple[float, float] | None,
    capacity: int,
) -> DeviceSettings:
    """`settings` with the fields of `new` that the mask names; a named field that is None in `new` returns to its default.

    `controls`: names that can be changed on this device. `power_range`: lowest and highest limit in watts that the driver
    accepts; None: not known. `capacity`: maximum of concurrent jobs. Raises INVALID_FIELD with all violations, then
    NOT_SUPPORTED_ON_DEVICE with the names that cannot be changed here.
    """
    if violations := [*_bad_mask(mask), *_bad_values(new, mask, power_range, capacity)]:
        raise InvalidRequest(violations)
    if fixed := [name for name in dict.fromkeys(mask) if name not in controls]:
        raise _not_here(fixed, controls)
    return msgspec.structs.replace(settings, **{name: getattr(new, name) for name in mask})


def _bad_mask(mask: Sequence[str]) -> Iterator[Violation]:
    names = DeviceSettings.__struct_fields__
    allowed = ", ".join(names)
    if not mask:
        message = "it is empty: name the settings to change"
        yield Violation(field="update_mask", message=message, allowed=allowed)
    for name in dict.fromkeys(mask):
        if name not in names:
            message = f"{name!r} is no setting: name each one to change, {allowed}"
            yield Violation(field="update_mask", message=message, allowed=allowed)


def _bad_values(
    new: DeviceSettings, mask: Sequence[str], power_range: tuple[float, float] | None, capacity: int
) -> Iterator[Violation]:
    ranges = {
        "power_limit_watts": power_range,
        "max_concurrent_jobs": (1, capacity),
        "max_temperature_celsius": MAX_TEMPERATURE_CELSIUS,
    }
    for name, limits in ranges.items():
        value = getattr(new, name)
        if name not in mask or value is None or limits is None:
            continue
        low, high = limits
        # Written this way so that NaN is outside.
        if not low <= value <= high:
            allowed = f"{low:g}..{high:g}"
            message = f"{value:g} is outside {allowed}"
            yield Violation(field=f"settings.{name}", message=message, allowed=allowed)


def _not_here(fixed: Sequence[str], controls: Collection[str]) -> NotSupported:
    can = ", ".join(sorted(controls)) or "none"
    return NotSupported(
        f"{', '.join(fixed)} cannot be changed on this device; settings that can: {can}",
        ErrorReason.NOT_SUPPORTED_ON_DEVICE,
        settings=",".join(fixed),
        controls=can,
    )
