"""Starts a device's worker, and starts it again when it dies."""

import asyncio
import time
from collections.abc import Callable
from contextlib import suppress
from enum import StrEnum

import structlog

from domains.device.devices import FINAL
from domains.errors import DeviceOpsError, ErrorReason, InternalError
from domains.processing.lane import Lane
from domains.processing.worker import WorkerGone
from server.worker.household import Household
from server.worker.life import Launcher, WorkerLife
from server.worker.link import WorkerLink

_SHORT_LIFE_S = 30.0
"""A worker that died younger than this is started again after a pause that doubles."""
_FIRST_PAUSE_S = 0.5
_LONGEST_PAUSE_S = 60.0
GREET_S = 120.0
"""How long a worker may take to import torch and try its device; then it hangs."""

_log = structlog.get_logger()


class KeeperState(StrEnum):
    """How the worker is."""

    STARTING = "starting"
    READY = "ready"
    RESTARTING = "restarting"
    STOPPED = "stopped"


class WorkerKeeper:
    """Keeps one device's worker alive, unless it is suspended."""

    def __init__(
        self,
        name: str,
        household: Household,
        capacity: Callable[[str], int],
        launcher: Launcher,
        greet_s: float = GREET_S,
    ) -> None:
        """`capacity`: how many jobs a device, by id, may work on in turns."""
        self.name = name
        """The device as its backend calls it: `cpu`, `cuda:0`, `sim-0`."""
        self.state = KeeperState.STARTING
        self.restarts = 0
        self.pid: int | None = None
        self.start_time_s: float | None = None
        self.ready_s: float | None = None
        """When the worker became ready, on the monotonic clock."""
        self.last_problem = ""
        self.last_reason = ErrorReason.WORKER_RESTARTING
        self.link: WorkerLink | None = None
        """To a worker that is ready."""
        self.talking: WorkerLink | None = None
        """To a worker that lives, ready or not."""
        self.device_id = ""
        """Empty until it is known, at the latest when the worker has described itself."""
        self.on_change: Callable[[], None] = lambda: None
        """Called when the worker becomes ready or is lost."""
        self._household = household
        self._capacity = capacity
        self._launcher = launcher
        self._greet_s = greet_s
        self._life: WorkerLife | None = None
        self._meant_to_end = ""
        """Why somebody ended this life of the worker; empty: nobody has."""
        self._wanted = asyncio.Event()
        self._wanted.set()
        self._hurry = asyncio.Event()
        """Set when somebody wants the next life now."""

    @property
    def refused(self) -> bool:
        """Whether something has to be installed or configured first: the worker is not started again by itself."""
        return self.last_reason in FINAL

    def suspend(self) -> None:
        """End the worker, and start it no more until `resume`."""
        self._wanted.clear()
        self.end("its device is not there")

    def resume(self) -> None:
        """Start it again."""
        self._wanted.set()
        self._hurry.set()

    def end(self, why: str) -> None:
        """Kill this life of the worker, even one that hangs in a driver; the next begins at once."""
        self._meant_to_end = self._meant_to_end or why
        self._hurry.set()
        if self._life is not None:
            self._life.kill()

    async def keep(self) -> None:
        """Run until cancelled; ends the worker then."""
        pause_s = 0.0
        try:
            while True:
                await self._pause(None if self.refused else pause_s)
                await self._wanted.wait()
                begin_s = time.monotonic()
                self._meant_to_end = ""
                await self._live()
                young = time.monotonic() - begin_s < _SHORT_LIFE_S and not self._meant_to_end
                pause_s = min(max(pause_s * 2, _FIRST_PAUSE_S), _LONGEST_PAUSE_S) if young and self.restarts else 0.0
                self.restarts += 1
                again = self._wanted.is_set() and not self.refused
                self._set(KeeperState.RESTARTING if again else KeeperState.STOPPED)
        finally:
            self._set(KeeperState.STOPPED)

    async def _live(self) -> None:
        """One life of the worker, from its start to its death."""
        self.last_reason = ErrorReason.WORKER_RESTARTING
        try:
            life = await self._launcher.launch(self.name, self.end, self._struck)
        except OSError as error:
            # No memory or no descriptors now: there may be some after the pause.
            message = f"the worker process of {self.name} could not be started: {error}"
            self._unready(InternalError(message, ErrorReason.DRIVER_ERROR, device_id=self.name))
            return
        pid = life.pid
        self._life, self.pid, self.start_time_s = life, pid, time.time()
        unready: DeviceOpsError | None = None
        try:
            if self._meant_to_end:
                # Somebody wanted its end before there was a process to end.
                life.kill()
            await self._greet(life)
            await self._serve(life)
        except DeviceOpsError as error:
            unready = error
        except Exception:
            # A fault of ours costs this life of the worker, and not all that follow.
            _log.exception("a bug ended a worker", device=self.name)
            self.last_problem = "a fault of the server; its log has the details"
        finally:
            await life.close()
            self._life = None
            self.pid = self.start_time_s = self.ready_s = self.talking = None
        if unready is not None:
            self._unready(unready)
        _log.warning("worker ended", device=self.name, pid=pid, problem=self.last_problem)

    def _struck(self, fault_index: int) -> None:
        self._household.struck(self.name, fault_index)

    def _unready(self, problem: DeviceOpsError) -> None:
        """This life ended before the worker was ready."""
        self.last_problem, self.last_reason = problem.message, problem.reason
        if self._meant_to_end:
            self.last_problem, self.last_reason = self._meant_to_end, ErrorReason.WORKER_RESTARTING
        else:
            self._household.unready(self.name, problem)

    async def _pause(self, pause_s: float | None) -> None:
        """None: until somebody wants the next life."""
        if pause_s != 0.0:
            with suppress(TimeoutError):
                async with asyncio.timeout(pause_s):
                    await self._hurry.wait()
        self._hurry.clear()

    async def _greet(self, life: WorkerLife) -> None:
        """Wait until the worker has described its device. Raises the worker's own refusal, or DRIVER_ERROR."""
        self.talking = life.link
        try:
            async with asyncio.timeout(self._greet_s):
                await self._household.prepare(self.name, life.link)
                await life.link.greet()
            return
        except TimeoutError:
            why = f"hangs: it was not ready within {self._greet_s:g} s"
        except WorkerGone as gone:
            why = f"ended before it was ready: {gone}, {await life.exit_detail()}"
        message = f"the worker process of {self.name} {why}"
        raise InternalError(message, ErrorReason.DRIVER_ERROR, device_id=self.name)

    async def _serve(self, life: WorkerLife) -> None:
        """Give the dispatcher a lane for as long as the link holds."""
        link = life.link
        self.device_id = link.device.id
        lane = Lane(lambda: self._capacity(link.device.id), link)
        self.link = link
        self.ready_s = time.monotonic()
        self._set(KeeperState.READY)
        _log.info("worker ready", device=link.device.id, name=link.device.display_name, pid=self.pid)
        problem: DeviceOpsError | None = None
        try:
            await self._household.arrived(self.name, lane)
            end = await life.ended()
            self.last_problem = self._meant_to_end or f"{end}, {await life.exit_detail()}"
            if not self._meant_to_end:
                message = f"the worker process of {link.device.id} ended by itself: {self.last_problem}"
                problem = InternalError(message, ErrorReason.DRIVER_ERROR, device_id=link.device.id)
        finally:
            self.link = None
            self._household.left(lane, problem)

    def _set(self, state: KeeperState) -> None:
        self.state = state
        self.on_change()
