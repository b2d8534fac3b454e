"""A dispatcher over a device whose worker is played by the test: no process, no pipe, nothing computed."""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, nullcontext
from pathlib import Path
from typing import NoReturn

import msgspec

from domains import storage
from domains.device.device import Device
from domains.device.devices import Devices
from domains.device.record import DeviceReach
from domains.draining import Draining
from domains.events import EventLog
from domains.inference.generation import Generation, Previews
from domains.inference.outcome import RunFailed, RunFinished, RunStopped
from domains.inference.resolution.resolve import resolve
from domains.memory.blobs.store import BlobStore
from domains.model.catalogue import Catalogue
from domains.model.loaded_models import LoadedModels
from domains.model.roots import Roots
from domains.processing.attempts.attempt import AttemptTools
from domains.processing.attempts.front_task import FrontRunners
from domains.processing.attempts.reproductions import Reproductions
from domains.processing.dispatcher import Dispatcher
from domains.processing.inputs.generation_files import GenerationFiles
from domains.processing.inputs.input_pictures import InputPictures
from domains.processing.inputs.picture_reader import PictureReader
from domains.processing.jobs.event import JobEvent
from domains.processing.jobs.job import Job, JobOptions
from domains.processing.jobs.jobs import Jobs
from domains.processing.jobs.kinds import GenerateWork
from domains.processing.jobs.preview_wishes import PreviewWishes
from domains.processing.jobs.state import JobState
from domains.processing.jobs.store import JobStore
from domains.processing.lanes.board import Board
from domains.processing.lanes.lane import Lane
from domains.processing.lanes.queue import JobQueue
from domains.processing.memory.company import any_company
from domains.processing.workers.silence import Silences
from domains.processing.workers.worker import Order, Report, WorkerGone
from domains.progress import Receipt, Stage
from domains.stop import Stop, StopKind
from tests.domains.device.test_devices import a_device

STOP_LIMIT_S = 0.5
STOPPED = RunStopped(
    stop=Stop(kind=StopKind.CANCEL), stage=Stage.DENOISING, latency_s=0.0, receipt=Receipt(steps_executed=3)
)


class PlayedWorker:
    """Answers each order with what the test says."""

    quiet_s = 0.0

    def __init__(self, device: Device) -> None:
        self.device = device
        self.answers: dict[str, asyncio.Queue[Report | WorkerGone]] = {}
        """By job: what its order is answered with next."""
        self.stopped: list[str] = []
        self.orders: list[Order] = []
        """All that came."""
        self.shown: list[tuple[str, Previews]] = []
        """Previews that were wanted of running jobs, in order."""
        self.asked = asyncio.Event()
        """Set when an order comes; renewed each time."""
        self.on_end: Callable[[], None] = lambda: None
        self.obeys = True
        """Whether it stops an order that is to stop."""
        self.lingers = False
        """Whether an order ends not with its last report but with the answer behind it."""
        self.lingering = asyncio.Event()
        """Set when one does."""

    async def carry_out(self, order: Order) -> AsyncIterator[Report]:
        answers = self.answers[order.order_id] = asyncio.Queue()
        self.orders.append(order)
        self.asked.set()
        self.asked = asyncio.Event()
        try:
            while not isinstance(answer := await answers.get(), WorkerGone):
                yield answer
                if isinstance(answer, RunFinished | RunFailed | RunStopped):
                    if not self.lingers:
                        return
                    self.lingering.set()
            raise answer
        finally:
            del self.answers[order.order_id]

    def stop(self, order_id: str, stop: Stop) -> None:
        if order_id in self.answers and self.obeys:
            self.stopped.append(order_id)
            self.answers[order_id].put_nowait(msgspec.structs.replace(STOPPED, stop=stop))

    def show(self, order_id: str, previews: Previews) -> None:
        self.shown.append((order_id, previews))

    def end(self, why: str) -> None:
        self.on_end()
        for answers in self.answers.values():
            answers.put_nowait(WorkerGone(why))


class Memory:
    """Has room for everything, unless the test says otherwise. Implements `MemoryForJobs`."""

    def __init__(self) -> None:
        self.claim: Callable[[Job, str], AbstractAsyncContextManager[None]] = lambda job, device_id: nullcontext()
        self.idle: list[str] = []
        """Models that can leave the device."""
        self.stuck = False
        """Whether they cannot be unloaded."""
        self.needs: list[int] = []
        """Bytes that were asked for."""

    def claimed(self, job: Job, device_id: str) -> AbstractAsyncContextManager[None]:
        return self.claim(job, device_id)

    def evictable(self, device_id: str) -> bool:
        return bool(self.idle)

    async def evict(self, device_id: str, need_bytes: int) -> Sequence[str]:
        self.needs.append(need_bytes)
        return [self.idle.pop()] if self.idle and not self.stuck else []


async def nothing(work: object, task: object) -> NoReturn:
    raise AssertionError("no test here has work for the front")


NO_RUNNERS = FrontRunners(
    scan=nothing, reset=nothing, transfer=nothing, validate=nothing, load_to_host=nothing, convert=nothing
)


def _takes_all(device_id: str, *, occupied: bool) -> bool:
    return False


def a_dispatcher(board: Board, tools: AttemptTools, beside: Callable[[Job, Lane], bool] = any_company) -> Dispatcher:
    """Over lanes with room in memory."""
    return Dispatcher(board.queue, board.lanes, board.room, board.meter, _takes_all, tools, beside)


async def end_tasks(draining: Draining) -> None:
    """End what still runs: a task that outlives its event loop would go on with a closed database."""
    draining.begin()
    while tasks := asyncio.all_tasks() - {asyncio.current_task()}:
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)


class DispatchBench:
    """Jobs, their dispatcher, and one device that works on two of them at once."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.database = storage.open_database(folder)
        self.devices = Devices(EventLog(self.database, folder))
        self.jobs = Jobs(JobStore(self.database, folder), keep_s=3600)
        self.catalogue = Catalogue(self.database, Roots([]), "emoji-sd")
        self.blobs = BlobStore(self.database, folder)
        self.memory = Memory()
        self.loaded = LoadedModels()
        self.draining = Draining()
        self.wishes = PreviewWishes()
        self.board = Board(JobQueue(100), self.devices)
        self.crowded = False
        """Whether no job fits beside another one."""
        self.dispatcher = a_dispatcher(self.board, self._tools(), self.beside)
        self.start_worker()

    async def close(self) -> None:
        """End what still runs."""
        await end_tasks(self.draining)
        self.database.close()

    def _tools(self) -> AttemptTools:
        return AttemptTools(
            jobs=self.jobs,
            devices=self.devices,
            catalogue=self.catalogue,
            loaded=self.loaded,
            blobs=self.blobs,
            inputs=GenerationFiles(InputPictures(self.jobs, self.blobs, PictureReader(self.blobs))),
            reproductions=Reproductions(self.jobs, self.blobs, PictureReader(self.blobs)),
            memory=self.memory,
            runners=NO_RUNNERS,
            wishes=self.wishes,
            draining=self.draining,
            silences=Silences(self.devices, least_s=60),
            stall_limit_s=60,
            stop_limit_s=STOP_LIMIT_S,
            elsewhere=self.board.lanes.has_other_than,
        )

    def start_worker(self) -> None:
        """A (new) worker is ready."""
        self.worker, self.lane = self.arrive("cuda:0", a_device())

    def arrive(self, name: str, device: Device) -> tuple[PlayedWorker, Lane]:
        """The worker of a device is ready."""
        worker = PlayedWorker(device)
        self.board.lanes.add(lane := Lane(lambda: 2, worker))
        self.devices.described(name, device, DeviceReach(capacity=2), ready=True)
        self.dispatcher.pump()
        return worker, lane

    def die(self) -> None:
        """The worker process dies by itself."""
        self.worker.on_end = lambda: None
        self.devices.worker_gone(self.worker.device.id, None)
        self.board.lanes.remove(self.lane)
        self.worker.end("it died")

    def submit(self, pictures: int = 1, **options: object) -> str:
        """A generation; its id."""
        asked = Generation(prompt="an owl", image_count=pictures)
        work = GenerateWork(asked=asked, resolved=resolve(asked, self.catalogue.default()))
        return self.jobs.submit(work, JobOptions(**options))[0].id  # pyright: ignore[reportArgumentType]  # by name

    def beside(self, job: Job, lane: Lane) -> bool:
        """Whether a job fits beside those of a lane."""
        return not self.crowded

    def job(self, job_id: str) -> Job:
        """As it is now."""
        return self.jobs.get(job_id)

    def events(self, job_id: str) -> list[JobEvent]:
        """What its journal says."""
        return [entry.value for entry in self.jobs.live(job_id).journal.after(0)]

    async def until(self, job_id: str, state: JobState) -> Job:
        """The job once it is in this state."""
        live = self.jobs.live(job_id)
        while live.job.state is not state:
            assert not live.job.state.ended, f"{job_id} ended {live.job.state}: {live.job.failure}"
            await live.journal.more(live.journal.last_sequence, 5.0)
        return live.job

    async def at_work(self, *job_ids: str) -> None:
        """Until the worker has their orders."""
        for job_id in job_ids:
            await self.until(job_id, JobState.RUNNING)
            while job_id not in self.worker.answers:
                await self.worker.asked.wait()

    async def finish(self, job_id: str) -> None:
        """Let a job come to its end."""
        await self.at_work(job_id)
        self.worker.answers[job_id].put_nowait(RunFinished(receipt=Receipt()))
        await self.until(job_id, JobState.SUCCEEDED)
