"""A worker that a test speaks for, and a dispatcher with a lane for it: no process, no device."""

import asyncio
import sqlite3
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, cast

from domains import storage
from domains.device.device import Backend, Device, DeviceKind
from domains.device.devices import Devices
from domains.device.record import DeviceReach
from domains.draining import Draining
from domains.events import EventLog, SystemEvent
from domains.inference.generation import Previews
from domains.model.loaded_models import LoadedModels
from domains.processing.attempts.attempt import AttemptTools
from domains.processing.attempts.front_task import FrontRunners
from domains.processing.attempts.reproductions import Reproductions
from domains.processing.inputs.generation_files import GenerationFiles
from domains.processing.inputs.input_pictures import InputPictures
from domains.processing.inputs.picture_reader import PictureReader
from domains.processing.jobs.jobs import Jobs
from domains.processing.jobs.preview_wishes import PreviewWishes
from domains.processing.jobs.store import JobStore
from domains.processing.lanes.board import Board
from domains.processing.lanes.lane import Lane
from domains.processing.lanes.queue import JobQueue
from domains.processing.workers.silence import Silences
from domains.processing.workers.worker import Order, Report, WorkerGone
from domains.stop import Stop
from tests.domains.processing.dispatch_bench import NO_RUNNERS, Memory, a_dispatcher, end_tasks

STALL_S = 300.0


def a_device(device_id: str = "sim-0") -> Device:
    return Device(
        id=device_id,
        aliases=(),
        display_name="A card",
        kind=DeviceKind.SIMULATED,
        backend=Backend.SIMULATED,
        backend_index=0,
        vendor="",
        total_memory_bytes=1 << 30,
        precision_support=(),
    )


class ScriptedWorker:
    """`domains.processing.workers.worker.Worker`: says nothing by itself."""

    def __init__(self, device: Device) -> None:
        self.device = device
        self.quiet_s = 0.0
        self.orders: list[Order] = []
        self.shown: list[tuple[str, Previews]] = []
        """Previews that were wanted of running jobs."""
        self.ended: list[str] = []
        """Why it was ended."""
        self.dies_when_ended = True
        self._answers: asyncio.Queue[Report | None] = asyncio.Queue()
        self.gone = asyncio.Event()
        """Set when it is ended and dies."""

    def say(self, *reports: Report) -> None:
        """To the order that waits, or to the next one; then the order is done."""
        for report in (*reports, None):
            self._answers.put_nowait(report)

    async def carry_out(self, order: Order) -> AsyncIterator[Report]:
        self.orders.append(order)
        gone = asyncio.ensure_future(self.gone.wait())
        try:
            while True:
                answer = asyncio.ensure_future(self._answers.get())
                await asyncio.wait({gone, answer}, return_when=asyncio.FIRST_COMPLETED)
                if not answer.done():
                    answer.cancel()
                    raise WorkerGone("; ".join(self.ended))
                if (report := answer.result()) is None:
                    return
                yield report
        finally:
            gone.cancel()

    def stop(self, order_id: str, stop: Stop) -> None:
        pass

    def show(self, order_id: str, previews: Previews) -> None:
        self.shown.append((order_id, previews))

    def end(self, why: str) -> None:
        self.ended.append(why)
        if self.dies_when_ended:
            self.gone.set()


class NoBlobs:
    """A store that holds nothing."""

    def let_go(self, name: str, job_id: str) -> None:
        """A job has ended."""


class Floor:
    """Devices, jobs and a dispatcher, as a server has them."""

    def __init__(self, folder: Path, runners: FrontRunners = NO_RUNNERS) -> None:
        self.database: sqlite3.Connection = storage.open_database(folder)
        self.log = EventLog(self.database, folder)
        self.devices = Devices(self.log)
        self.jobs = Jobs(JobStore(self.database, folder), keep_s=3600)
        self.loaded = LoadedModels()
        nothing = cast(Any, None)
        blobs = cast(Any, NoBlobs())
        self.draining = Draining()
        self.board = Board(JobQueue(100), self.devices)
        tools = AttemptTools(
            jobs=self.jobs,
            devices=self.devices,
            catalogue=nothing,
            loaded=self.loaded,
            blobs=nothing,
            inputs=GenerationFiles(InputPictures(self.jobs, blobs, PictureReader(blobs))),
            reproductions=Reproductions(self.jobs, nothing, PictureReader(nothing)),
            memory=Memory(),
            runners=runners,
            wishes=PreviewWishes(),
            draining=self.draining,
            silences=Silences(self.devices, least_s=60),
            stall_limit_s=STALL_S,
            stop_limit_s=STALL_S,
        )
        self.dispatcher = a_dispatcher(self.board, tools)
        self.workers: dict[str, ScriptedWorker] = {}

    async def close(self) -> None:
        """End what still runs."""
        await end_tasks(self.draining)
        self.database.close()

    def arrive(self, device_id: str = "sim-0", capacity: int = 2) -> ScriptedWorker:
        """A worker is ready."""
        worker = ScriptedWorker(a_device(device_id))
        self.board.lanes.add(Lane(lambda: capacity, worker))
        self.devices.described(device_id, worker.device, DeviceReach(capacity=capacity), ready=True)
        self.workers[device_id] = worker
        return worker

    def events(self) -> list[SystemEvent]:
        return [entry.value for entry in self.log.journal.after(0)]
