"""Checks devices through the real queue and worker, quarantines them, and ends a quarantine after a passed check."""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine

import structlog

from domains.device.device import DeviceState
from domains.device.devices import Devices
from domains.device.health import HealthDepth, HealthReport, Verdict
from domains.device.record import DeviceView
from domains.device.sample import DeviceSample
from domains.errors import (
    DeviceOpsError,
    ErrorReason,
    InternalError,
    Unavailable,
)
from domains.processing.devices.check import DeviceCheck
from domains.processing.lanes.lanes import Lanes

DEFAULT_TIMEOUT_S = {HealthDepth.QUICK: 30.0, HealthDepth.FULL: 120.0}
_LONGEST_PAUSE_S = 300.0

_log = structlog.get_logger()


class DeviceCare:
    """Checks devices, on request and while they are quarantined."""

    def __init__(
        self,
        devices: Devices,
        lanes: Lanes,
        sample: Callable[[DeviceView], Awaitable[DeviceSample]],
        restart: Callable[[str, str], None],
        spawn: Callable[[Coroutine[None, None, None]], None],
        *,
        recheck_s: float,
        stall_timeout_s: float,
    ) -> None:
        """`restart` ends a device's worker process, ready or not, for a reason, and starts the next at once."""
        self._devices = devices
        self._lanes = lanes
        self._sample = sample
        self._restart = restart
        self._spawn = spawn
        self._recheck_s = recheck_s
        self._stall_timeout_s = stall_timeout_s
        devices.listeners.append(self._device_changed)

    async def check(self, device_id: str, depth: HealthDepth, timeout_s: float) -> HealthReport:
        """Check whether a device computes correctly. A passed check ends a quarantine, a failed one begins it.

        Raises DEVICE_LOST, DEVICE_RECOVERING during a reset, QUEUE_TIMEOUT if a healthy job kept the device busy.
        """
        view = self._devices.there(device_id)
        if view.condition.resetting:
            message = f"device {view.device.id} is being reset, which ends with a check of its own"
            raise Unavailable(message, ErrorReason.DEVICE_RECOVERING, device_id=view.device.id)
        return await self.try_out(view, depth, timeout_s)

    async def try_out(self, view: DeviceView, depth: HealthDepth, timeout_s: float) -> HealthReport:
        """Run the check in any state of the device."""
        check = DeviceCheck(self._lanes, self._sample, view, depth, timeout_s, self._stall_timeout_s)
        report = await check.run()
        device_id = view.device.id
        if report.verdict is Verdict.UNHEALTHY and view.condition.refusal is None:
            bad = next(check for check in report.checks if check.verdict is Verdict.UNHEALTHY)
            reason = bad.failure_reason or ErrorReason.DRIVER_ERROR
            message = f"health check `{bad.name}` failed on {device_id}: {bad.message}"
            self._devices.quarantine(device_id, InternalError(message, reason, device_id=device_id, check=bad.name))
            if bad.failure_reason is ErrorReason.DRIVER_ERROR:
                # A driver error can corrupt the process, even if a later check passes.
                self.end_worker(device_id, message)
        elif check.complete:
            self._devices.passed(device_id)
        return report

    async def used_bytes(self, view: DeviceView) -> int | None:
        """Memory in use on the device by all processes, measured outside the worker; None: not measurable."""
        return (await self._sample(view)).used_memory_bytes

    async def bring_back(self, device_id: str) -> None:
        """Check a quarantined device at growing intervals until it passes."""
        pause_s = self._recheck_s
        while True:
            await asyncio.sleep(pause_s)
            pause_s = min(2 * pause_s, _LONGEST_PAUSE_S)
            view = self._devices.find(device_id)
            if view is None or not view.health.quarantined:
                return
            try:
                await self.check(device_id, HealthDepth.QUICK, DEFAULT_TIMEOUT_S[HealthDepth.QUICK])
            except DeviceOpsError as error:
                _log.info("quarantined device could not be checked", device=device_id, problem=error.message)
            except Exception:
                # Without this loop the device would stay quarantined for ever.
                _log.exception("a bug ended the check of a quarantined device", device=device_id)

    def end_worker(self, device_id: str, why: str) -> None:
        """End a device's worker process, ready or not; the next starts at once."""
        if (lane := self._lanes.of(device_id)) is not None:
            lane.end_worker(why)
        else:
            self._restart(device_id, why)

    def _device_changed(self, view: DeviceView, before: DeviceView | None) -> None:
        if view.state is DeviceState.QUARANTINED and (before is None or before.state is not view.state):
            self._spawn(self.bring_back(view.device.id))
