"""One health check of a device, through the real queue and worker."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from contextlib import aclosing

from domains.device.health import HealthCheck, HealthDepth, HealthReport, Verdict
from domains.device.record import DeviceView
from domains.device.sample import DeviceSample
from domains.errors import DeadlineExceeded, DeviceOpsError, ErrorReason, Unavailable
from domains.processing.lanes.lane import Lane
from domains.processing.lanes.lanes import Lanes
from domains.processing.workers.ask import reports_of
from domains.processing.workers.worker import Checked, CheckOrder, new_order_id

_LONGEST_SILENCE_S = 20.0
"""A check that is silent for less than this still computes: the longest one computes for ten seconds without a report."""


class DeviceCheck:
    """One health check."""

    def __init__(
        self,
        lanes: Lanes,
        sample: Callable[[DeviceView], Awaitable[DeviceSample]],
        view: DeviceView,
        depth: HealthDepth,
        timeout_s: float,
        stall_timeout_s: float,
    ) -> None:
        self._lanes = lanes
        self._sample = sample
        self._stall_timeout_s = stall_timeout_s
        self.complete = False
        """Whether all checks of the device ran."""
        self._view = view
        self._depth = depth
        self._timeout_s = timeout_s
        self._checks: list[HealthCheck] = []
        self._answered = False
        """Whether the worker has reported a check."""
        self._begin_s = time.monotonic()
        self._queue_s = 0.0

    async def run(self) -> HealthReport:
        start_time_s = time.time()
        self._checks.append(await self._telemetry())
        if (refusal := self._view.condition.refusal) is not None:
            self._checks.append(_failed("queue", refusal.message, refusal.reason))
        elif self._view.condition.worker_ready or self._view.settings.enabled:
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
            recommendations=advice(self._view.device.id, self._checks),
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
        lane = await self._lanes.ready(device_id)
        async with self._lanes.turn(lane, alone=self._depth is HealthDepth.FULL) as worker:
            self._queue_s = time.monotonic() - self._begin_s
            order = CheckOrder(order_id=new_order_id("check"), depth=self._depth)
            async with aclosing(reports_of(worker, order)) as reports:  # pyright: ignore[reportArgumentType]  # a generator
                async for report in reports:
                    if isinstance(report, Checked):
                        if not self._answered:
                            text = f"its turn came after {self._queue_s:.3f} s"
                            self._checks.append(_check("queue", Verdict.HEALTHY, text, self._queue_s))
                        self._answered = True
                        self._checks.append(report.check)
            self.complete = self._answered

    def _no_answer(self) -> HealthCheck:
        """Judge a timeout: the device hangs, a healthy job kept it busy, or its worker is not ready yet."""
        device_id, limit = self._view.device.id, f"{self._timeout_s:g} s"
        lane = self._lanes.of(device_id)
        if lane is None or lane.worker is None:
            # The keeper reports a worker that cannot start, or hangs while it starts.
            message = f"the worker process of {device_id} was not ready within {limit}; retry shortly"
            raise Unavailable(message, ErrorReason.STARTING, device_id=device_id)
        if lane.worker.quiet_s >= self._silence_s(lane):
            return _failed("queue", f"the device did not answer within {limit}", ErrorReason.DRIVER_ERROR)
        if self._answered:
            return _check("queue", Verdict.SKIPPED, f"the checks were not all done within {limit}; allow more")
        message = f"jobs kept {device_id} busy, in good health, for {limit}; retry with more"
        raise DeadlineExceeded(message, ErrorReason.QUEUE_TIMEOUT, timeout_s=self._timeout_s)

    def _silence_s(self, lane: Lane) -> float:
        """Silence after which a worker counts as hung. Its one thread may be in another order's long step or load."""
        if lane.occupied:
            return self._stall_timeout_s
        return max(self._timeout_s / 2, _LONGEST_SILENCE_S if self._answered else 0.0)


def _check(name: str, verdict: Verdict, message: str, duration_s: float = 0.0) -> HealthCheck:
    return HealthCheck(name=name, verdict=verdict, message=message, duration_s=duration_s)


def _failed(name: str, message: str, reason: ErrorReason) -> HealthCheck:
    return HealthCheck(name=name, verdict=Verdict.UNHEALTHY, message=message, failure_reason=reason)


def advice(device_id: str, checks: list[HealthCheck]) -> tuple[str, ...]:
    """Advice for people about what was found."""
    bad = {check.name for check in checks if check.verdict is Verdict.UNHEALTHY}
    slow = {check.name for check in checks if check.verdict is Verdict.DEGRADED}
    told: list[str] = []
    if bad & {"queue", "allocate", "copy", "compute"}:
        again = "if it fails again, look at the driver's log and the hardware"
        told.append(f"restart its worker process with ResetDevice for {device_id}; {again}")
    if bad & {"verify", "memory_patterns"}:
        told.append("do not trust pictures made on it since the last passed check; test its memory and power supply")
    if slow:
        told.append("look at cooling, power limit and what else runs on it")
    return tuple(told)
