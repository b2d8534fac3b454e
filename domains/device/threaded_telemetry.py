"""Telemetry for an event loop: driver calls on one thread per device, each with a deadline."""

import time
from contextlib import suppress
from functools import partial

from domains.device.device import Device
from domains.device.driver_thread import ANSWER_S, DriverThread
from domains.device.record import DeviceReach
from domains.device.sample import DeviceSample
from domains.device.telemetry import ALWAYS, PowerRange, Telemetry
from domains.errors import DeviceOpsError, InternalError


class ThreadedTelemetry:
    """Calls a `Telemetry` on threads. Each call ends by the deadline."""

    def __init__(self, telemetry: Telemetry, limit_s: float = ANSWER_S) -> None:
        self._telemetry = telemetry
        self._limit_s = limit_s
        self._threads: dict[str, DriverThread] = {}

    async def sample(self, device: Device) -> DeviceSample:
        """Measure now; a sample without figures if the driver hangs. Raises only DeviceGone."""
        now = time.time()
        thread = self._thread(device)
        try:
            return await thread.ask(partial(self._telemetry.sample, device))
        except InternalError:
            return DeviceSample(time_s=now)

    async def controls(self, device: Device) -> tuple[str, ...]:
        """As `Telemetry`; DRIVER_ERROR if the driver hangs."""
        return await self._thread(device).ask(partial(self._telemetry.controls, device))

    async def power_range(self, device: Device) -> PowerRange | None:
        """As `Telemetry`; DRIVER_ERROR if the driver hangs."""
        return await self._thread(device).ask(partial(self._telemetry.power_range, device))

    async def set_power_limit(self, device: Device, watts: float | None) -> None:
        """As `Telemetry`; DRIVER_ERROR if the driver hangs."""
        await self._thread(device).ask(partial(self._telemetry.set_power_limit, device, watts))

    async def restore(self, device: Device) -> None:
        """As `Telemetry`; DRIVER_ERROR if the driver hangs."""
        await self._thread(device).ask(partial(self._telemetry.restore, device))

    async def reach(self, device: Device, capacity: int) -> DeviceReach:
        """What can be measured and changed on a device; nothing but `ALWAYS` if its driver fails or hangs."""
        telemetry: tuple[str, ...] = ()
        controls = ALWAYS
        # A device that is gone is reported by the next scan for hardware.
        with suppress(DeviceOpsError):
            telemetry = (await self.sample(device)).telemetry
            controls = await self.controls(device)
        return DeviceReach(telemetry=telemetry, controls=controls, capacity=capacity)

    def close(self) -> None:
        """End the threads; a thread whose driver hangs ends with the process."""
        for thread in self._threads.values():
            thread.stop()
        self._threads.clear()

    def _thread(self, device: Device) -> DriverThread:
        if device.id not in self._threads:
            self._threads[device.id] = DriverThread(device.id, self._limit_s)
        return self._threads[device.id]
