"""Telemetry of simulated devices: scripted figures under the real load."""

import threading
import time
from collections.abc import Callable

from domains.device.device import Device
from domains.device.sample import DeviceSample, ThrottleReason
from domains.device.simulated.heat import Lag
from domains.device.simulated.script import Power, SimDevice
from domains.device.telemetry import ALWAYS, DeviceGone, PowerRange, check_power

POWER_SETTLES_S = 0.5


class SimulatedTelemetry:
    """Implements `domains.device.telemetry.Telemetry`. Thread-safe."""

    def __init__(
        self,
        find: Callable[[str], SimDevice | None],
        clock: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
    ) -> None:
        """`find`: the device in the current script by id."""
        self._find = find
        self._clock = clock
        self._wall = wall
        self._lock = threading.Lock()
        self._cards: dict[str, _Card] = {}

    def load(self, device_id: str, running: int) -> None:
        """Set the number of running jobs."""
        with self._lock:
            sim_device = self._find(device_id)
            heating_s = sim_device.temperature.heating_s if sim_device else 0.0
            self._card(device_id).load(running > 0, self._clock(), heating_s)

    def holds(self, device_id: str, live_bytes: int) -> None:
        """Set the memory that the device's worker uses, without the runtime; 0 when the worker has ended."""
        with self._lock:
            self._card(device_id).live_bytes = live_bytes

    def sample(self, device: Device) -> DeviceSample:
        """Measure now. Raises DeviceGone while the device is unplugged."""
        sim_device = self._there(device)
        with self._lock:
            return self._card(device.id).sample(sim_device, self._clock(), self._wall())

    def controls(self, device: Device) -> tuple[str, ...]:
        """All settings."""
        return (*ALWAYS, "power_limit_watts", "max_temperature_celsius")

    def power_range(self, device: Device) -> PowerRange | None:
        """The scripted range."""
        return _range(self._there(device).power)

    def set_power_limit(self, device: Device, watts: float | None) -> None:
        """Raises INVALID_FIELD outside the scripted range, DEVICE_LOST while the device is unplugged."""
        sim_device = self._there(device)
        if watts is not None:
            check_power(device, watts, _range(sim_device.power))
        with self._lock:
            self._card(device.id).limit_watts = watts

    def restore(self, device: Device) -> None:
        """Remove the limit."""
        with self._lock:
            self._card(device.id).limit_watts = None

    def _there(self, device: Device) -> SimDevice:
        sim_device = self._find(device.id)
        if sim_device is None or not sim_device.present:
            raise DeviceGone(f"{device.id} is pulled out, says the script", device_id=device.id)
        return sim_device

    def _card(self, device_id: str) -> "_Card":
        if device_id not in self._cards:
            self._cards[device_id] = _Card(self._clock())
        return self._cards[device_id]


class _Card:
    """State of one device."""

    def __init__(self, now_s: float) -> None:
        self.busy = False
        self.live_bytes = 0
        self.limit_watts: float | None = None
        """None: the maximum."""
        self._heat = Lag(now_s)
        self._draw = Lag(now_s)

    def load(self, busy: bool, now_s: float, heating_s: float) -> None:
        if busy != self.busy:
            self._heat.aim(float(busy), now_s, heating_s)
            self._draw.aim(float(busy), now_s, POWER_SETTLES_S)
            self.busy = busy

    def sample(self, sim_device: SimDevice, now_s: float, time_s: float) -> DeviceSample:
        heat, power = sim_device.temperature, sim_device.power
        level = self._heat.at(now_s, heat.heating_s)
        wanted = _between(power.idle_watts, power.loaded_watts, self._draw.at(now_s, POWER_SETTLES_S))
        most = power.most_limit_watts if self.limit_watts is None else self.limit_watts
        # The script may have changed since the limit was set.
        limit = min(max(most, power.least_limit_watts), power.most_limit_watts)
        limited = (ThrottleReason.POWER_LIMIT,) if wanted > limit else ()
        return DeviceSample(
            time_s=time_s,
            utilization_ratio=float(self.busy),
            used_memory_bytes=min(sim_device.runtime_bytes + self.live_bytes, sim_device.memory_bytes),
            total_memory_bytes=sim_device.memory_bytes,
            temperature_celsius=_between(heat.idle_celsius, heat.loaded_celsius, level),
            power_watts=min(wanted, limit),
            power_limit_watts=limit,
            throttle_reasons=limited if self.busy else (ThrottleReason.IDLE,),
        )


def _range(power: Power) -> PowerRange:
    most = power.most_limit_watts
    return PowerRange(least_watts=power.least_limit_watts, most_watts=most, default_watts=most)


def _between(low: float, high: float, level: float) -> float:
    return low + (high - low) * level
