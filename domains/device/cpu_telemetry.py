"""Telemetry of the host's processor, read from the operating system."""

import threading
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil

from domains.device.cgroup import HostMemory, host_memory
from domains.device.device import Device
from domains.device.host_cpu import cpu_clock_mhz
from domains.device.rapl import Rapl
from domains.device.sample import DeviceSample
from domains.device.telemetry import ALWAYS, PowerRange, no_power_limit

# The kernel counts processor time in hundredths of a second: a share of a shorter span means nothing.
_SHORTEST_S = 0.08
_APART_S = 0.01
"""Readings closer than this are not kept: many samples at once must not push out those before them."""
_KEPT = 16
"""Readings that are kept."""
_GUESTS = {"guest", "guest_nice"}
"""Times that `user` and `nice` include."""
_IDLE = {"idle", "iowait"}
"""Waiting for a disk counts as idle."""
_SENSORS = ("coretemp", "k10temp", "zenpower", "cpu_thermal", "soc_thermal", "cpu-thermal")
_PACKAGES = ("package", "tctl", "tdie")


class CpuTelemetry:
    """Telemetry of the CPU. The load is that of all processes since the previous sample."""

    def __init__(
        self,
        clock: Callable[[], float] = time.monotonic,
        power: Path = Path("/sys/class/powercap"),
        memory: Callable[[], HostMemory] = host_memory,
    ) -> None:
        self._clock = clock
        self._memory = memory
        self._rapl = Rapl(power, clock)
        self._lock = threading.Lock()
        self._seen: deque[tuple[float, float, float]] = deque([self._reading()], maxlen=_KEPT)
        """Time, busy seconds and all seconds; the newest at the right."""

    def sample(self, device: Device) -> DeviceSample:
        """Measure now."""
        memory = self._memory()
        return DeviceSample(
            time_s=time.time(),
            utilization_ratio=self._load(),
            used_memory_bytes=memory.used_bytes,
            total_memory_bytes=memory.total_bytes,
            temperature_celsius=temperature(),
            power_watts=self._rapl.watts(),
            clock_mhz=cpu_clock_mhz(),
        )

    def controls(self, device: Device) -> tuple[str, ...]:
        """A temperature ceiling only if a temperature can be measured."""
        return ALWAYS if temperature() is None else (*ALWAYS, "max_temperature_celsius")

    def power_range(self, device: Device) -> PowerRange | None:
        """None: the server does not limit a processor's power."""
        return None

    def set_power_limit(self, device: Device, watts: float | None) -> None:
        """Raises NOT_SUPPORTED_ON_DEVICE."""
        raise no_power_limit(device)

    def restore(self, device: Device) -> None:
        """Nothing to restore."""

    def _reading(self) -> tuple[float, float, float]:
        times: dict[str, float] = psutil.cpu_times()._asdict()
        every = sum(times.values()) - sum(times[name] for name in _GUESTS & times.keys())
        return self._clock(), every - sum(times[name] for name in _IDLE & times.keys()), every

    def _load(self) -> float | None:
        """Load since the newest reading that is old enough. None: there is none yet."""
        with self._lock:
            now = self._reading()
            old = [seen for seen in self._seen if now[0] - seen[0] >= _SHORTEST_S]
            if not old:
                return None
            before = old[-1]
            self._seen = deque((seen for seen in self._seen if seen[0] >= before[0]), maxlen=self._seen.maxlen)
            if now[0] - self._seen[-1][0] >= _APART_S:
                self._seen.append(now)
        every = now[2] - before[2]
        return min(1.0, max(0.0, (now[1] - before[1]) / every)) if every > 0 else None


def temperature() -> float | None:
    """Temperature of the processor's package, else of its hottest core. None: no sensor, as in most virtual machines."""
    read: Callable[[], dict[str, list[Any]]] | None = getattr(psutil, "sensors_temperatures", None)
    try:
        sensors = read() if read else {}
    except (OSError, RuntimeError):
        return None
    entries = [entry for name in _SENSORS for entry in sensors.get(name, [])]
    packages = [entry for entry in entries if entry.label.lower().startswith(_PACKAGES)]
    return max((float(entry.current) for entry in packages or entries), default=None)
