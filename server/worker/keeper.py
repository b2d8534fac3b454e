"""Starts a device's worker, and restarts it when it dies."""

import asyncio
import time
from collections.abc import Callable
from contextlib import suppress
from enum import StrEnum

import structlog

from domains.device.device import Device
from domains.device.devices import FINAL
from domains.errors import DeviceOpsError, ErrorReason, InternalError
from domains.processing.lanes.lane import Lane
from domains.processing.workers.worker import WorkerGone
from domains.system_errors import system_error
from server.worker.life import Launcher, Link, WorkerLife
from server.worker.listener import WorkerListener

_SHORT_LIFE_S = 30.0
"""A worker that lived shorter and finished no job is restarted after a pause, which doubles each time."""
_FIRST_PAUSE_S = 0.5
_LONGEST_PAUSE_S = 60.0
READY_LIMIT_S = 120.0
"""A worker that needs longer to import torch and probe its device counts as hung."""

_log = structlog.get_logger()


class KeeperState(StrEnum):
    """State of the worker."""

    STARTING = "starting"
    READY = "ready"
    RESTARTING = "restarting"
    STOPPED = "stopped"


class WorkerKeeper:
    """Keeps one device's worker running, unless it is suspended."""

    def __init__(
        self,
        name: str,
        device_id: str,
        listener: WorkerListener,
        capacity: Callable[[Device], int],
        launcher: Launcher,
        ready_limit_s: float = READY_LIMIT_S,
    ) -> None:
        """`device_id`: empty if only the worker can tell it. `capacity`: concurrent jobs of a device."""
        self.name = name
        """The backend's name of the device: `cpu`, `cuda:0`, `sim-0`."""
        self.state = KeeperState.STARTING
        self.restarts = 0
        self.pid: int | None = None
        self.start_time_s: float | None = None
        self.ready_s: float | None = None
        """When the worker became ready, on the monotonic clock."""
        self.last_problem = ""
        self.last_reason = ErrorReason.WORKER_RESTARTING
        self.link: Link | None = None
        """Link to a worker that is ready."""
        self.live_link: Link | None = None
        """Link to a worker that runs, ready or not."""
        self.device_id = device_id
        """Empty until the worker has described its device."""
        self._listener = listener
        self._capacity = capacity
        self._launcher = launcher
        self._ready_limit_s = ready_limit_s
        self._life: WorkerLife | None = None
        self._meant_to_end = ""
        """Why the server ended this worker process; empty: it did not."""
        self._wanted = asyncio.Event()
        self._wanted.set()
        self._hurry = asyncio.Event()
        """Set when the next worker process is wanted without a pause."""

    @property
    def refused(self) -> bool:
        """Whether an installation or a setting is missing: the worker is not restarted until `end` or `resume`."""
        return self.last_reason in FINAL

    def suspend(self) -> None:
        """End the worker, and do not start it again before `resume`."""
        self._wanted.clear()
        self.end("its device is not there")

    def resume(self) -> None:
        """Start the worker again."""
        self._wanted.set()
        self._hurry.set()

    def end(self, why: str) -> None:
        """Kill the worker process, even one that hangs in a driver; the next starts at once."""
        self._meant_to_end = self._meant_to_end or why
        self._hurry.set()
        if self._life is not None:
            self._life.kill()

    async def keep(self) -> None:
        """Keep the worker running until cancelled; then end it."""
        pause_s = 0.0
        try:
            while True:
                await self._pause(None if self.refused else pause_s)
                await self._wanted.wait()
                begin_s = time.monotonic()
                self._meant_to_end = ""
                proven = await self._live() or time.monotonic() - begin_s >= _SHORT_LIFE_S
                at_once = proven or self._meant_to_end or not self.restarts
                pause_s = 0.0 if at_once else min(max(pause_s * 2, _FIRST_PAUSE_S), _LONGEST_PAUSE_S)
                self.restarts += 1
                again = self._wanted.is_set() and not self.refused
                self._set(KeeperState.RESTARTING if again else KeeperState.STOPPED)
        finally:
            self._set(KeeperState.STOPPED)

    def _not_started(self, error: Exception) -> DeviceOpsError:
        """What is told of a process that could not be started."""
        why = str(error)
        if not isinstance(error, OSError) and system_error(error) is None:
            _log.exception("a bug kept a worker from starting", device=self.name)
            why = "a fault of the server; its log has the details"
        message = f"the worker process of {self.name} could not be started: {why}"
        return InternalError(message, ErrorReason.DRIVER_ERROR, device_id=self.name)

    async def _live(self) -> bool:
        """Run one worker process from its start to its end. Returns whether it finished a job."""
        self.last_reason = ErrorReason.WORKER_RESTARTING
        try:
            life = await self._launcher.launch(self.name, self.end, self._fault_struck)
        except Exception as error:
            # The system may have no memory, descriptor or thread now; after the pause it may have one.
            self._unready(self._not_started(error))
            return False
        pid = life.pid
        self._life, self.pid, self.start_time_s = life, pid, time.time()
        unready: DeviceOpsError | None = None
        try:
            if self._meant_to_end:
                # `end` was called before there was a process to kill.
                life.kill()
            await self._wait_until_ready(life)
            await self._serve(life)
        except DeviceOpsError as error:
            unready = error
        except Exception:
            # A bug of the server ends this worker process only; the next one starts.
            _log.exception("a bug ended a worker", device=self.name)
            self.last_problem = "a fault of the server; its log has the details"
        finally:
            await life.close()
            self._life = None
            self.pid = self.start_time_s = self.ready_s = self.live_link = None
        if unready is not None:
            self._unready(unready)
        _log.warning("worker ended", device=self.name, pid=pid, problem=self.last_problem)
        return life.link.has_finished_work

    def _fault_struck(self, fault_index: int) -> None:
        self._listener.fault_struck(self.name, fault_index)

    def _unready(self, problem: DeviceOpsError) -> None:
        """The worker process ended before it was ready."""
        self.last_problem, self.last_reason = problem.message, problem.reason
        if self._meant_to_end:
            self.last_problem, self.last_reason = self._meant_to_end, ErrorReason.WORKER_RESTARTING
        else:
            self._listener.unready(self.name, problem)

    async def _pause(self, pause_s: float | None) -> None:
        """Wait `pause_s`, or until the next worker process is wanted. None: only for that."""
        if pause_s != 0.0:
            with suppress(TimeoutError):
                async with asyncio.timeout(pause_s):
                    await self._hurry.wait()
        self._hurry.clear()

    async def _wait_until_ready(self, life: WorkerLife) -> None:
        """Wait until the worker has described its device. Raises the worker's own refusal, or DRIVER_ERROR."""
        self.live_link = life.link
        try:
            async with asyncio.timeout(self._ready_limit_s):
                await self._listener.prepare(self.name, life.link)
                await life.link.describe()
            return
        except TimeoutError:
            why = f"hangs: it was not ready within {self._ready_limit_s:g} s"
        except WorkerGone as gone:
            why = f"ended before it was ready: {gone}, {await life.exit_detail()}"
        message = f"the worker process of {self.name} {why}"
        raise InternalError(message, ErrorReason.DRIVER_ERROR, device_id=self.name)

    async def _serve(self, life: WorkerLife) -> None:
        """Provide a lane for as long as the link holds."""
        link = life.link
        self.device_id = link.device.id
        lane = Lane(lambda: self._capacity(link.device), link)
        self.link = link
        self.ready_s = time.monotonic()
        self._set(KeeperState.READY)
        _log.info("worker ready", device=link.device.id, name=link.device.display_name, pid=self.pid)
        problem: DeviceOpsError | None = None
        try:
            await self._listener.arrived(self.name, lane)
            end = await life.ended()
            self.last_problem = self._meant_to_end or f"{end}, {await life.exit_detail()}"
            if not self._meant_to_end:
                message = f"the worker process of {link.device.id} ended by itself: {self.last_problem}"
                problem = InternalError(message, ErrorReason.DRIVER_ERROR, device_id=link.device.id)
        finally:
            self.link = None
            self._listener.left(lane, problem)

    def _set(self, state: KeeperState) -> None:
        self.state = state
        self._listener.state_changed()
