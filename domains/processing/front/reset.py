"""A reset: brings a device back to a clean state; its jobs continue afterwards."""

import asyncio
import time
from contextlib import suppress

from domains.device.devices import Devices, device_lost
from domains.device.health import HealthDepth, Verdict
from domains.device.record import DeviceView
from domains.errors import ErrorReason, FailedPrecondition, InternalError, NotSupported
from domains.model.loaded_models import LoadedModels
from domains.processing.attempts.front_task import FrontTask
from domains.processing.devices.care import DeviceCare
from domains.processing.jobs.event import ResetReport, ResetResult
from domains.processing.jobs.kinds import ResetWork
from domains.processing.jobs.outcome import Done, Halted
from domains.processing.lanes.lane import Lane
from domains.processing.lanes.lanes import Lanes
from domains.processing.workers.ask import ask
from domains.processing.workers.stall_limit import stall_limit
from domains.processing.workers.worker import Emptied, EmptyOrder, WorkerStalled, new_order_id
from domains.progress import Stage, StageStarted

_READY_S = 120.0
"""Longest time until a new worker process is ready."""
_CHECK_S = 60.0
_EMPTY_S = 60.0
"""A worker without a report for this long while it frees its memory hangs."""


class ResetRunner:
    """Carries out resets."""

    def __init__(self, devices: Devices, lanes: Lanes, loaded: LoadedModels, care: DeviceCare) -> None:
        self._devices = devices
        self._lanes = lanes
        self._loaded = loaded
        self._care = care

    async def run(self, work: ResetWork, task: FrontTask) -> Done | Halted:
        """Drain the device, free its worker's memory or end the worker, wait for readiness, then check the device."""
        begin, device_id = time.monotonic(), self._devices.get(work.device_id).device.id
        self._devices.resetting(device_id, True)
        try:
            report = await task.unless_stopped(self._carry_out(task, device_id, work, begin))
        finally:
            self._devices.resetting(device_id, False)
        if report is None:
            return Halted()
        result = ResetResult(report=report, view=self._devices.get(device_id))
        return Done.in_one_stage(result, Stage.RESETTING, time.monotonic() - begin)

    async def _carry_out(self, task: FrontTask, device_id: str, work: ResetWork, begin: float) -> ResetReport:
        task.tell(StageStarted(stage=Stage.DRAINING))
        await self._drain(device_id, work.drain_timeout_s)
        task.tell(StageStarted(stage=Stage.RESETTING))
        report = await self._reset(device_id, work, begin)
        await self._verify(device_id)
        return report

    async def _drain(self, device_id: str, timeout_s: float) -> None:
        """Wait for running jobs; no new job starts meanwhile."""
        lane = self._lanes.of(device_id)
        if lane is not None:
            with suppress(TimeoutError):
                async with asyncio.timeout(timeout_s):
                    await lane.idle()

    async def _reset(self, device_id: str, work: ResetWork, begin: float) -> ResetReport:
        lane = self._lanes.of(device_id)
        running = tuple(lane.running) if lane else ()
        if running and not work.force:
            message = (
                f"{len(running)} jobs on {device_id} did not end within {work.drain_timeout_s:g} s; allow more time,"
                " or set `force` to interrupt them"
            )
            raise FailedPrecondition(message, ErrorReason.ILLEGAL_STATE, device_id=device_id, jobs=", ".join(running))
        models = tuple(one.id for one in self._loaded.list() if one.device_id == device_id)
        # Only the end of the process interrupts a running job.
        process = work.process or bool(running) or lane is None
        freed = await (self._recycle(device_id, lane) if process else self._empty(device_id))
        return ResetReport(
            process=process,
            device_id=device_id,
            freed_bytes=freed,
            ended_loaded_model_ids=models,
            interrupted_job_ids=running,
            duration_s=time.monotonic() - begin,
        )

    async def _recycle(self, device_id: str, lane: Lane | None) -> int | None:
        """Replace the worker process; returns the bytes freed, as the driver measures them even if the worker hangs."""
        view = self._devices.get(device_id)
        if lane is not None:
            # If the worker ends by itself meanwhile, its end does not count against the jobs.
            lane.meant_to_end = True
        before = await self._care.used_bytes(view)
        lane = self._lanes.of(device_id)
        if lane is None and not (view.settings.enabled or view.condition.worker_was_ready):
            # The device was never enabled: it has no process and holds nothing.
            return 0
        if lane is not None:
            lane.end_worker("the device is reset")
            await self._devices.until(device_id, lambda now: not now.condition.worker_ready)
        else:
            # The worker may hang before it is ready, or wait for its next start.
            self._devices.tried_again(device_id)
            self._care.end_worker(device_id, "the device is reset")
        try:
            async with asyncio.timeout(_READY_S):
                ready = await self._devices.until(device_id, _decided)
        except TimeoutError:
            message = f"device {device_id} did not come back within {_READY_S:g} s"
            raise InternalError(message, ErrorReason.DRIVER_ERROR, device_id=device_id) from None
        if not ready.condition.present:
            raise device_lost(device_id, "it vanished during its reset")
        if (refusal := ready.condition.refusal) is not None:
            raise NotSupported(refusal.message, refusal.reason, device_id=device_id)
        after = await self._care.used_bytes(view)
        return None if before is None or after is None else before - after

    async def _empty(self, device_id: str) -> int | None:
        lane = await self._lanes.ready(device_id)
        async with self._lanes.turn(lane, alone=True) as worker:
            try:
                async with stall_limit(worker, _EMPTY_S):
                    done = await ask(worker, EmptyOrder(order_id=new_order_id("empty"), models=True), Emptied)
            except WorkerStalled as stalled:
                message = f"{device_id} did not give back its memory; its worker process was ended: {stalled}"
                error = InternalError(message, ErrorReason.DRIVER_ERROR, device_id=device_id)
                self._devices.failed(device_id, error)
                raise error from stalled
        self._loaded.remove_device(device_id)
        return done.freed_bytes

    async def _verify(self, device_id: str) -> None:
        report = await self._care.try_out(self._devices.get(device_id), HealthDepth.QUICK, _CHECK_S)
        if report.verdict is Verdict.UNHEALTHY:
            bad = next(check for check in report.checks if check.verdict is Verdict.UNHEALTHY)
            message = f"device {device_id} was reset and is still not well: {bad.name}: {bad.message}"
            raise InternalError(message, ErrorReason.DRIVER_ERROR, device_id=device_id, check=bad.name)


def _decided(view: DeviceView) -> bool:
    """Whether the state of the device after its reset is known."""
    return view.condition.worker_ready or not view.condition.present or view.condition.refusal is not None
