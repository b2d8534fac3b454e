"""Telemetry of NVIDIA GPUs from NVML, in the server's process: it works while a worker hangs."""

import time
from types import ModuleType
from typing import Any

import pynvml

from domains.device.adapter import Adapter
from domains.device.device import Device
from domains.device.nvml_driver import Nvml, code
from domains.device.nvml_inventory import adapters
from domains.device.original_limits import OriginalLimits
from domains.device.sample import DeviceSample, ThrottleReason
from domains.device.telemetry import ALWAYS, DeviceGone, PowerRange, check_power, no_power_limit
from domains.errors import DeviceOpsError, ErrorReason, InternalError

# Bits of nvmlDeviceGetCurrentClocksEventReasons, numbered as in nvml.h. Later bits map to OTHER.
_REASONS = (
    (0x001, ThrottleReason.IDLE),
    (0x002, ThrottleReason.CLOCK_LIMIT),
    (0x004, ThrottleReason.POWER_LIMIT),
    (0x008, ThrottleReason.HARDWARE_PROTECTION),
    (0x010, ThrottleReason.OTHER),
    (0x020, ThrottleReason.TEMPERATURE),
    (0x040, ThrottleReason.HARDWARE_PROTECTION),
    (0x080, ThrottleReason.HARDWARE_PROTECTION),
    (0x100, ThrottleReason.CLOCK_LIMIT),
)
_NAMED = 0x1FF
_POWER = "power_limit_watts"
_TEMPERATURE = "max_temperature_celsius"


class NvmlTelemetry:
    """Asks NVML for each figure separately: a figure that this GPU or user lacks does not affect the others."""

    def __init__(self, driver: ModuleType = pynvml, original_limits: OriginalLimits | None = None) -> None:
        """`original_limits` stores the limits from before the first change; None: in memory only."""
        self._nvml = Nvml(driver)
        self._known: dict[int, Adapter] = {}
        """By index, from the newest listing."""
        self._seen: set[str] = set()
        """UUIDs of all GPUs that were ever listed."""
        self._stale = False
        """A GPU was lost; NVML must be opened again to see it come back."""
        self._original_limits = original_limits or OriginalLimits()

    def inventory(self) -> tuple[Adapter, ...]:
        """The GPUs that the driver lists; empty without a driver. Raises DRIVER_ERROR if the driver fails."""
        if self._stale:
            self._stale = False
            self.close()
        listed = adapters(self._nvml, self._known)
        here = {adapter.uuid for adapter in listed.adapters}
        self._seen |= here
        self._stale = self._stale or listed.gone or here < self._seen
        self._known = {adapter.index: adapter for adapter in listed.adapters}
        return listed.adapters

    def close(self) -> None:
        """Close NVML. The next call opens it again, which is needed to see a GPU that came back."""
        self._nvml.close()

    def sample(self, device: Device) -> DeviceSample:
        """Measure now. Raises only DeviceGone."""
        now = time.time()
        try:
            return self._sample(device, self._handle(device), now)
        except self._nvml.error as error:
            if self._nvml.is_gone(error):
                raise self._gone(device, error) from error
        except DeviceOpsError:
            # The driver cannot be opened: all figures are absent, and `inventory` reports why.
            pass
        return DeviceSample(time_s=now)

    def _sample(self, device: Device, handle: Any, now: float) -> DeviceSample:
        def ask(name: str, *arguments: Any) -> Any:
            return self._nvml.ask(device.id, f"DeviceGet{name}", handle, *arguments)

        busy, memory = ask("UtilizationRates"), ask("MemoryInfo")
        limit = ask("EnforcedPowerLimit") or ask("PowerManagementLimit")
        return DeviceSample(
            time_s=now,
            utilization_ratio=None if busy is None else busy.gpu / 100,
            memory_activity_ratio=None if busy is None else busy.memory / 100,
            used_memory_bytes=None if memory is None else int(memory.used),
            total_memory_bytes=None if memory is None else int(memory.total),
            temperature_celsius=_scaled(ask("Temperature", self._nvml.constant("TEMPERATURE_GPU"))),
            memory_temperature_celsius=self._memory_temperature(device, handle),
            power_watts=_scaled(ask("PowerUsage"), 1000),
            power_limit_watts=_scaled(limit, 1000),
            clock_mhz=ask("ClockInfo", self._nvml.constant("CLOCK_SM")),
            memory_clock_mhz=ask("ClockInfo", self._nvml.constant("CLOCK_MEM")),
            fan_speed_fraction=_scaled(ask("FanSpeed"), 100),
            throttle_reasons=throttle_reasons(
                ask("CurrentClocksEventReasons") or ask("CurrentClocksThrottleReasons") or 0
            ),
        )

    def _memory_temperature(self, device: Device, handle: Any) -> float | None:
        field = self._nvml.constant("FI_DEV_MEMORY_TEMP")
        if field is None:
            return None
        values = self._nvml.ask(device.id, "DeviceGetFieldValues", handle, [field])
        # A GPU without that sensor returns a status of its own, or zero degrees.
        if not values or values[0].nvmlReturn != 0:
            return None
        return float(values[0].value.uiVal) or None

    def controls(self, device: Device) -> tuple[str, ...]:
        """Settings that can be changed; the power limit only if the driver lets this user set it."""
        try:
            handle = self._handle(device)
            hot = self.sample(device).temperature_celsius is not None
            power = self.power_range(device) is not None and self._may_set(handle)
        except (DeviceOpsError, self._nvml.error):
            return ALWAYS
        return ALWAYS + (_POWER,) * power + (_TEMPERATURE,) * hot

    def _may_set(self, handle: Any) -> bool:
        """Whether the driver accepts the present limit as a new one."""
        try:
            limit = self._nvml.names.nvmlDeviceGetPowerManagementLimit(handle)
            self._nvml.names.nvmlDeviceSetPowerManagementLimit(handle, limit)
        except self._nvml.error:
            return False
        return True

    def power_range(self, device: Device) -> PowerRange | None:
        """None: the driver has no range, or a range of one value. Raises DeviceGone."""
        try:
            handle = self._handle(device)
            limits = self._nvml.ask(device.id, "DeviceGetPowerManagementLimitConstraints", handle)
            default = self._nvml.ask(device.id, "DeviceGetPowerManagementDefaultLimit", handle)
        except self._nvml.error as error:
            if self._nvml.is_gone(error):
                raise self._gone(device, error) from error
            return None
        if limits is None or limits[0] >= limits[1]:
            return None
        least, most = limits
        return PowerRange(least_watts=least / 1000, most_watts=most / 1000, default_watts=_scaled(default, 1000))

    def set_power_limit(self, device: Device, watts: float | None) -> None:
        """Set the limit in the driver; see `Telemetry.set_power_limit`."""
        allowed = self.power_range(device)
        wanted = watts if watts is not None else allowed and allowed.default_watts
        if allowed is None or wanted is None:
            raise no_power_limit(device)
        check_power(device, wanted, allowed)
        first = False
        try:
            handle = self._handle(device)
            before = self._nvml.ask(device.id, "DeviceGetPowerManagementLimit", handle)
            # Recorded before the change: if the server is killed in between, nothing is lost.
            first = before is not None and self._original_limits.note(device.id, before)
            self._nvml.names.nvmlDeviceSetPowerManagementLimit(handle, round(wanted * 1000))
        except self._nvml.error as error:
            if first:
                self._original_limits.forget(device.id)
            raise self._refusal(device, wanted, error) from error

    def restore(self, device: Device) -> None:
        """Restore the recorded limit; see `Telemetry.restore`."""
        if (before := self._original_limits.before(device.id)) is None:
            return
        try:
            self._nvml.names.nvmlDeviceSetPowerManagementLimit(self._handle(device), before)
        except self._nvml.error as error:
            raise self._refusal(device, before / 1000, error) from error
        self._original_limits.forget(device.id)

    def _refusal(self, device: Device, watts: float, error: Exception) -> DeviceOpsError:
        if self._nvml.is_gone(error):
            return self._gone(device, error)
        if code(error) == self._nvml.constant("ERROR_NOT_SUPPORTED"):
            return no_power_limit(device)
        remedy = "; run the server with administrator rights to set it" if code(error) in self._nvml.refused else ""
        message = f"the driver refused a power limit of {watts:g} W for {device.id}: {error}{remedy}"
        return InternalError(message, ErrorReason.DRIVER_ERROR, device_id=device.id, power_limit_watts=watts)

    def _gone(self, device: Device, error: Exception) -> DeviceGone:
        self._stale = True
        return DeviceGone(f"device {device.id} is not there any more: {error}", device_id=device.id)

    def _handle(self, device: Device) -> Any:
        if not self._nvml.open():
            raise InternalError("NVIDIA's driver is not loaded", ErrorReason.DRIVER_ERROR, device_id=device.id)
        return self._nvml.handle(device.uuid, device.pci_bus_id)


def throttle_reasons(bits: int) -> tuple[ThrottleReason, ...]:
    """Reasons for NVML's bits, each once, in the contract's order."""
    found = {reason for bit, reason in _REASONS if bits & bit}
    if bits & ~_NAMED:
        found.add(ThrottleReason.OTHER)
    return tuple(reason for reason in ThrottleReason if reason in found)


def _scaled(answer: float | None, unit: int = 1) -> float | None:
    return None if answer is None else answer / unit
