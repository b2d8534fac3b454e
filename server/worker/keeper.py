"""Starts a device's worker, and starts it again when it dies."""

import asyncio
import os
import sys
import time
from collections.abc import Callable
from enum import StrEnum

import structlog

from domains.device.device import DeviceState
from domains.device.devices import Devices
from domains.model.loaded import LoadedModels
from domains.processing.dispatch import Dispatcher, Lane
from domains.processing.worker import WorkerGone
from server.stdio.channel import STREAM_LIMIT_BYTES, FrameChannel
from server.worker.link import WorkerLink

_SHORT_LIFE_S = 30.0
"""A worker that died younger than this is started again after a pause that doubles."""
_FIRST_PAUSE_S = 0.5
_LONGEST_PAUSE_S = 60.0

# How long OpenMP's idle threads spin before they sleep. For ever is fastest alone, but two torch processes that spin on the
# same cores slow each other thirtyfold; never costs a third alone. Measured with the embedded model on 2 cores, seconds a
# picture alone and beside another: endless 2.10 and over 25, 20000 turns 2.10 and 16.5, 3000 turns 2.13 and 5.8, none 2.85.
_THREADS = {"GOMP_SPINCOUNT": "3000", "KMP_BLOCKTIME": "0", "PYTHONUNBUFFERED": "1"}

_log = structlog.get_logger()


class KeeperState(StrEnum):
    """How the worker is."""

    STARTING = "starting"
    READY = "ready"
    RESTARTING = "restarting"
    STOPPED = "stopped"


class WorkerKeeper:
    """Keeps one device's worker alive."""

    def __init__(
        self, name: str, dispatcher: Dispatcher, devices: Devices, loaded: LoadedModels, jobs_per_device: int
    ) -> None:
        self.name = name
        """The device as torch calls it: `cpu`, `cuda:0`."""
        self.state = KeeperState.STARTING
        self.restarts = 0
        self.pid: int | None = None
        self.start_time_s: float | None = None
        self.last_problem = ""
        self.link: WorkerLink | None = None
        self.on_change: Callable[[], None] = lambda: None
        """Called when the worker becomes ready or is lost."""
        self._dispatcher = dispatcher
        self._devices = devices
        self._loaded = loaded
        self._capacity = jobs_per_device
        self._process: asyncio.subprocess.Process | None = None

    async def keep(self) -> None:
        """Run until cancelled; ends the worker then."""
        pause_s = 0.0
        try:
            while True:
                await asyncio.sleep(pause_s)
                begin_s = time.monotonic()
                await self._live()
                young = time.monotonic() - begin_s < _SHORT_LIFE_S
                pause_s = min(max(pause_s * 2, _FIRST_PAUSE_S), _LONGEST_PAUSE_S) if young and self.restarts else 0.0
                self.restarts += 1
                self._set(KeeperState.RESTARTING)
        finally:
            self._set(KeeperState.STOPPED)

    async def _live(self) -> None:
        """One life of the worker, from its start to its death."""
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "server.worker.process",
            self.name,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            limit=STREAM_LIMIT_BYTES,
            env={**os.environ, **_THREADS},
        )
        self._process, self.pid, self.start_time_s = process, process.pid, time.time()
        assert process.stdout is not None
        assert process.stdin is not None
        try:
            async with FrameChannel(process.stdout, process.stdin) as channel:
                await self._serve(channel)
                self.last_problem = f"{(await channel.closed).detail}, exit status {await process.wait()}"
        except WorkerGone as gone:
            self.last_problem = str(gone)
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
            self.pid = self.start_time_s = None
        _log.warning("worker ended", device=self.name, pid=process.pid, problem=self.last_problem)

    async def _serve(self, channel: FrameChannel) -> None:
        """Give the dispatcher a lane for as long as the pipe holds."""
        link = await WorkerLink.greet(channel)
        lane = Lane(link, self._capacity)
        self.link = link
        self._set(KeeperState.READY)
        _log.info("worker ready", device=link.device.id, name=link.device.display_name, pid=self.pid)
        self._dispatcher.add_lane(lane)
        try:
            await asyncio.shield(channel.closed)
        finally:
            self.link = None
            self._dispatcher.remove_lane(lane)
            self._loaded.remove_device(link.device.id)
            self._devices.put(link.device, DeviceState.RECOVERING, 0)

    def _set(self, state: KeeperState) -> None:
        self.state = state
        if self.link is not None:
            self._devices.put(self.link.device, DeviceState.AVAILABLE, 0)
        self.on_change()
