"""A reset: brings a device back to a clean state, and its jobs go on afterwards."""

import asyncio
import time

from domains.device.devices import Devices, device_lost
from domains.device.health import HealthDepth, Verdict
from domains.errors import ErrorReason, FailedPrecondition, InternalError
from domains.model.loaded import LoadedModels
from domains.processing.ask import ask
from domains.processing.device_care import DeviceCare
from domains.processing.dispatch import Dispatcher
from domains.processing.front_job import FrontJob
from domains.processing.job import Job, ResetWork
from domains.processing.job_event import ResetReport, ResetResult
from domains.processing.jobs import Jobs
from domains.processing.worker import Emptied, EmptyOrder
from domains.progress import Stage, StageStarted

_READY_S = 120.0
"""How long a new worker process may take."""
_CHECK_S = 60.0


class ResetRuns:
    """Carries out resets."""

    def __init__(
        self, jobs: Jobs, devices: Devices, dispatcher: Dispatcher, loaded: LoadedModels, care: DeviceCare
    ) -> None:
        self._jobs = jobs
        self._devices = devices
        self._dispatcher = dispatcher
        self._loaded = loaded
        self._care = care

    async def run(self, job: Job) -> None:
        """Drain, throw away, wait until the device is ready again and has passed a check."""
        assert isinstance(job.work, ResetWork)
        begin = time.monotonic()
        front, device_id = FrontJob(self._jobs, job), self._devices.get(job.work.device_id).device.id
        self._devices.resetting(device_id, True)
        try:
            self._jobs.record(job.id, StageStarted(stage=Stage.DRAINING))
            await self._drain(device_id, job.work.drain_timeout_s, front)
            if front.cancelled:
                front.stopped(Stage.DRAINING)
                return
            self._jobs.record(job.id, StageStarted(stage=Stage.RESETTING))
            report = await self._reset(device_id, job.work, begin)
            await self._verify(device_id)
        finally:
            self._devices.resetting(device_id, False)
        view = self._devices.get(device_id)
        front.succeeded(ResetResult(report=report, view=view), Stage.RESETTING, time.monotonic() - begin)

    async def _drain(self, device_id: str, timeout_s: float, front: FrontJob) -> None:
        """Let running jobs end; no new ones start meanwhile."""
        lane = self._dispatcher.lanes.of(device_id)
        if lane is None:
            return
        waits = {asyncio.ensure_future(lane.idle()), asyncio.ensure_future(front.until_cancelled())}
        await asyncio.wait(waits, timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED)
        for wait in waits:
            wait.cancel()
        await asyncio.gather(*waits, return_exceptions=True)

    async def _reset(self, device_id: str, work: ResetWork, begin: float) -> ResetReport:
        lane = self._dispatcher.lanes.of(device_id)
        running = tuple(lane.running) if lane else ()
        if running and not work.force:
            message = (
                f"{len(running)} jobs on {device_id} did not end within {work.drain_timeout_s:g} s; allow more time,"
                " or set `force` to interrupt them"
            )
            raise FailedPrecondition(message, ErrorReason.ILLEGAL_STATE, device_id=device_id, jobs=", ".join(running))
        models = tuple(one.id for one in self._loaded.list() if one.device_id == device_id)
        # A running job can only be interrupted with its process.
        process = work.process or bool(running) or lane is None
        freed = await (self._recycle(device_id, running) if process else self._empty(device_id))
        return ResetReport(
            process=process,
            device_id=device_id,
            freed_bytes=freed,
            ended_loaded_model_ids=models,
            interrupted_job_ids=running,
            duration_s=time.monotonic() - begin,
        )

    async def _recycle(self, device_id: str, running: tuple[str, ...]) -> int | None:
        """A new process. Its memory is measured from outside, so a wedged one is measured too."""
        view = self._devices.get(device_id)
        before = await self._care.used_bytes(view)
        for job_id in running:
            self._dispatcher.excuse(job_id)
        lane = self._dispatcher.lanes.of(device_id)
        if lane is None and not (view.settings.enabled or view.condition.worker_was_ready):
            # Nobody has enabled it yet: it has no process, and holds nothing.
            return 0
        if lane is not None:
            lane.end_worker("the device is reset")
            await self._devices.until(device_id, lambda now: not now.condition.worker_ready)
        try:
            async with asyncio.timeout(_READY_S):
                ready = await self._devices.until(
                    device_id, lambda now: now.condition.worker_ready or not now.condition.present
                )
        except TimeoutError:
            message = f"device {device_id} did not come back within {_READY_S:g} s"
            raise InternalError(message, ErrorReason.DRIVER_ERROR, device_id=device_id) from None
        if not ready.condition.present:
            raise device_lost(device_id, "it vanished during its reset")
        after = await self._care.used_bytes(view)
        return None if before is None or after is None else before - after

    async def _empty(self, device_id: str) -> int | None:
        lane = await self._dispatcher.lanes.ready(device_id)
        async with self._dispatcher.lanes.turn(lane, alone=True) as worker:
            done = await ask(worker, EmptyOrder(job_id=f"empty {device_id}", models=True), Emptied)
        self._loaded.remove_device(device_id)
        return done.freed_bytes

    async def _verify(self, device_id: str) -> None:
        report = await self._care.try_out(self._devices.get(device_id), HealthDepth.QUICK, _CHECK_S)
        if report.verdict is Verdict.UNHEALTHY:
            bad = next(check for check in report.checks if check.verdict is Verdict.UNHEALTHY)
            message = f"device {device_id} was reset and is still not well: {bad.name}: {bad.message}"
            raise InternalError(message, ErrorReason.DRIVER_ERROR, device_id=device_id, check=bad.name)
