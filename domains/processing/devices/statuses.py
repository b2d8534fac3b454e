"""Measures each device through its driver, and adds what the server knows. Works while a worker hangs."""

import asyncio
import time
from collections.abc import Callable, Sequence

import structlog

from domains.device.device import DeviceState
from domains.device.devices import Devices
from domains.device.history import STEP_S, DeviceHistory, DeviceHistoryView
from domains.device.record import DeviceView
from domains.device.sample import DeviceSample
from domains.device.status import DeviceStatus, Workload
from domains.device.telemetry import DeviceGone
from domains.device.threaded_telemetry import ThreadedTelemetry

_COOLER_CELSIUS = 5.0
"""A hot device must be this much below its ceiling to count as cool again."""

_log = structlog.get_logger()

Uptime = Callable[[str], tuple[float | None, int]]
"""By device: seconds since its worker was ready (None: no worker is ready), and its number of restarts."""


class DeviceStatuses:
    """Measures devices, keeps their history and judges their heat."""

    def __init__(
        self, devices: Devices, telemetry: ThreadedTelemetry, workload: Callable[[str], Workload], uptime: Uptime
    ) -> None:
        self._devices = devices
        self._telemetry = telemetry
        self._workload = workload
        self._uptime = uptime
        self._histories: dict[str, DeviceHistory] = {}
        self._unmeasured: set[str] = set()
        """Hot devices without a temperature, already logged."""

    def ids(self) -> Sequence[str]:
        """All devices, lost ones too. Raises STARTING before the first look is over."""
        self._devices.check_known()
        return [view.device.id for view in self._devices.list()]

    def resolve(self, name: str) -> str:
        """The id of a device by id or alias. Raises DEVICE_NOT_FOUND, STARTING."""
        return self._devices.get(name).device.id

    async def status(self, device_id: str) -> DeviceStatus:
        """Measure one device now. A lost device has no measurements."""
        sample = await self.sample(self._devices.get(device_id))
        view, health = self._devices.get(device_id), self._devices.get(device_id).health
        uptime_s, restarts = self._uptime(device_id)
        return DeviceStatus(
            device_id=device_id,
            state=view.state,
            sample=sample,
            error_count=health.error_count,
            consecutive_error_count=health.consecutive,
            last_failure=health.last_failure,
            last_failure_time_s=health.last_failure_time_s,
            worker_uptime_s=uptime_s,
            worker_restart_count=restarts,
            workload=self._workload(device_id),
        )

    async def sample(self, view: DeviceView) -> DeviceSample:
        """Measure a device through its driver; a sample without figures if the device is not there."""
        if view.state is DeviceState.LOST:
            return DeviceSample(time_s=time.time())
        try:
            sample = await self._telemetry.sample(view.device)
        except DeviceGone:
            return DeviceSample(time_s=time.time())
        self._history(view.device.id).add(sample)
        # Read again: the ceiling may have changed during the driver's call.
        self._judge_heat(self._devices.get(view.device.id), sample)
        return sample

    def history(self, name: str, start_s: float | None, end_s: float, step_s: float | None) -> DeviceHistoryView:
        """Part of a device's history. Raises DEVICE_NOT_FOUND, STARTING."""
        return self._history(self.resolve(name)).query(start_s, end_s, step_s)

    async def keep_sampling(self) -> None:
        """Sample every device once per step of its history; judge its heat and drop old errors."""
        while True:
            await asyncio.gather(*map(self._look, self._devices.list()))
            # Wait for the middle of the next step, so that an early or late sample still falls into its own step.
            await asyncio.sleep(STEP_S - (time.time() - STEP_S / 2) % STEP_S)

    async def _look(self, view: DeviceView) -> None:
        try:
            self._devices.forget_old_errors(view.device.id)
            # A watcher's sample in this step is enough.
            if self._history(view.device.id).lacks(time.time()):
                await self.sample(view)
        except Exception:
            # A bug of the server ends this sample only; the next one follows.
            _log.exception("a bug ended a look at a device", device=view.device.id)

    def _history(self, device_id: str) -> DeviceHistory:
        return self._histories.setdefault(device_id, DeviceHistory())

    def _judge_heat(self, view: DeviceView, sample: DeviceSample) -> None:
        ceiling, now = view.settings.max_temperature_celsius, sample.temperature_celsius
        hot = view.condition.too_hot
        if ceiling is not None and now is None:
            # A missing measurement does not mean cool: the last verdict holds until the next measurement.
            if hot and view.device.id not in self._unmeasured:
                self._unmeasured.add(view.device.id)
                _log.warning("hot device cannot be measured; it counts as hot", device=view.device.id)
            return
        self._unmeasured.discard(view.device.id)
        too_hot = ceiling is not None and now is not None and now - ceiling > (-_COOLER_CELSIUS if hot else 0.0)
        if too_hot is not hot:
            self._devices.too_hot(view.device.id, too_hot)
