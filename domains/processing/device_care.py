"""Looks after the devices: checks through the real queue and worker, quarantine, and the way back from it."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from contextlib import aclosing, suppress

from domains.device.devices import Devices
from domains.device.health import HealthCheck, HealthDepth, HealthReport, Verdict
from domains.device.record import DeviceView
from domains.device.sample import DeviceSample
from domains.errors import (
    DeadlineExceeded,
    DeviceOpsError,
    ErrorReason,
    InternalError,
    Unavailable,
)
from domains.processing.ask import reports_of
from domains.processing.dispatch import Dispatcher
from domains.processing.worker import Checked, CheckOrder, order_id

DEFAULT_TIMEOUT_S = {HealthDepth.QUICK: 30.0, HealthDepth.FULL: 120.0}
_LONGEST_PAUSE_S = 300.0


class DeviceCare:
    """Checks devices, on request and by itself."""

    def __init__(
        self,
        devices: Devices,
        dispatcher: Dispatcher,
        sample: Callable[[DeviceView], Awaitable[DeviceSample]],
        recheck_s: float,
    ) -> None:
        self._devices = devices
        self._dispatcher = dispatcher
        self._sample = sample
        self._recheck_s = recheck_s

    async def check(self, device_id: str, depth: HealthDepth, timeout_s: float) -> HealthReport:
        """Try whether a device computes right. A passed check ends a quarantine, a failed one begins it.

        Raises DEVICE_LOST, DEVICE_RECOVERING while a reset is on its way, QUEUE_TIMEOUT where a healthy job kept the device.
        """
        view = self._devices.there(device_id)
        if view.condition.resetting:
            message = f"device {view.device.id} is being reset, which ends with a check of its own"
            raise Unavailable(message, ErrorReason.DEVICE_RECOVERING, device_id=view.device.id)
        return await self.try_out(view, depth, timeout_s)

    async def try_out(self, view: DeviceView, depth: HealthDepth, timeout_s: float) -> HealthReport:
        """The check itself, whatever the device's state."""
        report = await _Check(self._dispatcher, self._sample, view, depth, timeout_s).run()
        device_id = view.device.id
        if report.verdict is Verdict.UNHEALTHY:
            bad = next(check for check in report.checks if check.verdict is Verdict.UNHEALTHY)
            reason = bad.failure_reason or ErrorReason.DRIVER_ERROR
            message = f"the check {bad.name!r} of {device_id} failed: {bad.message}"
            self._devices.quarantine(device_id, InternalError(message, reason, device_id=device_id, check=bad.name))
            lane = self._dispatcher.lanes.of(device_id)
            if bad.failure_reason is ErrorReason.DRIVER_ERROR and lane is not None:
                # Its process is not to be trusted any more, whatever the next check says.
                lane.end_worker(message)
        elif report.verdict is not Verdict.SKIPPED:
            self._devices.passed(device_id)
        return report

    async def used_bytes(self, view: DeviceView) -> int | None:
        """Memory in use on the device by all processes, measured from outside; None: it cannot be."""
        return (await self._sample(view)).used_memory_bytes

    async def bring_back(self, device_id: str) -> None:
        """Check a quarantined device now and then, until it passes."""
        pause_s = self._recheck_s
        while True:
            await asyncio.sleep(pause_s)
            pause_s = min(2 * pause_s, _LONGEST_PAUSE_S)
            view = self._devices.find(device_id)
            if view is None or not view.health.quarantined:
                return
            with suppress(DeviceOpsError):
                await self.check(device_id, HealthDepth.QUICK, DEFAULT_TIMEOUT_S[HealthDepth.QUICK])


class _Check:
    """One health check."""

    def __init__(
        self,
        dispatcher: Dispatcher,
        sample: Callable[[DeviceView], Awaitable[DeviceSample]],
        view: DeviceView,
        depth: HealthDepth,
        timeout_s: float,
    ) -> None:
        self._dispatcher = dispatcher
        self._sample = sample
        self._view = view
        self._depth = depth
        self._timeout_s = timeout_s
        self._checks: list[HealthCheck] = []
        self._granted = False
        """Whether its turn has come."""
        self._begin_s = time.monotonic()
        self._queue_s = 0.0

    async def run(self) -> HealthReport:
        start_time_s = time.time()
        self._checks.append(await self._telemetry())
        if self._view.condition.worker_ready or self._view.settings.enabled:
            try:
                async with asyncio.timeout(self._timeout_s):
                    await self._through_the_queue()
            except TimeoutError:
                self._checks.append(self._no_answer())
            except DeviceOpsError as error:
                self._checks.append(_failed("queue", error.message, error.reason))
        else:
            self._checks.append(_check("queue", Verdict.SKIPPED, "the device is disabled and has no worker process"))
        total_s = time.monotonic() - self._begin_s
        return HealthReport(
            device_id=self._view.device.id,
            checks=tuple(self._checks),
            check_time_s=start_time_s,
            queue_s=self._queue_s,
            duration_s=total_s - self._queue_s,
            recommendations=_advice(self._checks),
        )

    async def _telemetry(self) -> HealthCheck:
        begin = time.monotonic()
        sample = await self._sample(self._view)
        took = time.monotonic() - begin
        if not sample.telemetry:
            return _check("telemetry", Verdict.SKIPPED, "nothing of this device can be measured from outside", took)
        hot = self._view.condition.too_hot
        told = ", ".join(sample.telemetry)
        verdict = Verdict.DEGRADED if hot else Verdict.HEALTHY
        return _check("telemetry", verdict, "it is above its temperature ceiling" if hot else f"measured: {told}", took)

    async def _through_the_queue(self) -> None:
        device_id = self._view.device.id
        lane = await self._dispatcher.lanes.ready(device_id)
        async with self._dispatcher.lanes.turn(lane, alone=self._depth is HealthDepth.FULL) as worker:
            self._queue_s = time.monotonic() - self._begin_s
            self._granted = True
            order = CheckOrder(job_id=order_id("check"), depth=self._depth)
            said: list[HealthCheck] = []
            async with aclosing(reports_of(worker, order)) as reports:  # pyright: ignore[reportArgumentType]  # a generator
                async for report in reports:
                    if isinstance(report, Checked):
                        if not said:
                            text = f"its turn came after {self._queue_s:.3f} s"
                            self._checks.append(_check("queue", Verdict.HEALTHY, text, self._queue_s))
                        said.append(report.check)
                        self._checks.append(report.check)

    def _no_answer(self) -> HealthCheck:
        """The time is over: the device hangs, or a healthy job kept it."""
        device_id, limit = self._view.device.id, f"{self._timeout_s:g} s"
        lane = self._dispatcher.lanes.of(device_id)
        if lane is None or lane.worker is None:
            return _failed("queue", f"no worker process was ready within {limit}", ErrorReason.DRIVER_ERROR)
        if not self._granted and lane.worker.quiet_s < self._timeout_s / 2:
            message = f"jobs kept {device_id} busy, in good health, for {limit}; retry with more"
            raise DeadlineExceeded(message, ErrorReason.QUEUE_TIMEOUT, timeout_s=self._timeout_s)
        return _failed("queue", f"the device did not answer within {limit}", ErrorReason.DRIVER_ERROR)


def _check(name: str, verdict: Verdict, message: str, duration_s: float = 0.0) -> HealthCheck:
    return HealthCheck(name=name, verdict=verdict, message=message, duration_s=duration_s)


def _failed(name: str, message: str, reason: ErrorReason) -> HealthCheck:
    return HealthCheck(name=name, verdict=Verdict.UNHEALTHY, message=message, failure_reason=reason)


def _advice(checks: list[HealthCheck]) -> tuple[str, ...]:
    """What to do about what was found."""
    bad = {check.name for check in checks if check.verdict is Verdict.UNHEALTHY}
    slow = {check.name for check in checks if check.verdict is Verdict.DEGRADED}
    told: list[str] = []
    if bad & {"queue", "allocate", "copy", "compute"}:
        told.append("ResetDevice with the level PROCESS; if it fails again, look at the driver's log and the hardware")
    if bad & {"verify", "memory_patterns"}:
        told.append("do not trust pictures made on it since the last passed check; test its memory and power supply")
    if slow:
        told.append("look at cooling, power limit and what else runs on it")
    return tuple(told)
