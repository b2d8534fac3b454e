"""Keepers: a worker that does not become ready is told of, whatever the reason, and is started again."""

import asyncio
import sys
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import asynccontextmanager, closing
from pathlib import Path
from typing import Any

import psutil
import pytest

from deviceops.common.v1 import domain_pb2, error_pb2
from deviceops.processing.v1 import system_status_pb2
from domains.checkpoints import Checkpoints
from domains.clock import ClockWatch, ExpiryClock, system_clocks
from domains.clock_store import ClockStore
from domains.device.devices import Devices
from domains.draining import Draining
from domains.errors import DeviceOpsError, ErrorReason
from domains.events import EventLog
from domains.processing.lanes.lane import Lane
from domains.storage import open_database
from server.processing.status import SystemView
from server.settings import Settings
from server.stdio.child import ChildProcess
from server.worker import keeper as worker_keeper
from server.worker.command import WorkerStart
from server.worker.keeper import KeeperState, WorkerKeeper
from server.worker.launcher import environment
from server.worker.life import Link
from server.worker.process_life import ProcessLife
from tests.domains.processing.scripted_worker import a_device

HANGS = (sys.executable, "-c", "import time; time.sleep(1000)")
DIES = (sys.executable, "-c", "raise SystemExit(3)")
REFUSES = (
    sys.executable,
    "-c",
    "from server.stdio.peer import FramePeer; from server.stdio.pipe import protect_stdout\n"
    "from server.worker.frame_orders import FrameOrders\n"
    "from domains.processing.on_device.refusal import refuse; from domains.errors import ErrorReason, NotSupported\n"
    "refuse(FrameOrders(FramePeer(*protect_stdout())), NotSupported('install it', ErrorReason.FEATURE_NOT_INSTALLED))",
)
NOT_THERE = ("/nowhere/python",)


class Listener:
    """Collects the problems that a keeper reports."""

    def __init__(self) -> None:
        self.problems: asyncio.Queue[DeviceOpsError] = asyncio.Queue()
        self.changed = asyncio.Event()

    async def prepare(self, name: str, link: Link) -> None:
        pass

    async def arrived(self, name: str, lane: Lane) -> None:
        raise AssertionError("none of these becomes ready")

    def fault_struck(self, device_id: str, fault_index: int) -> None:
        raise AssertionError("none of these is simulated")

    def left(self, lane: Lane, problem: DeviceOpsError | None) -> None:
        raise AssertionError("none of these becomes ready")

    def unready(self, name: str, problem: DeviceOpsError) -> None:
        self.problems.put_nowait(problem)

    def state_changed(self) -> None:
        self.changed.set()


class Commands:
    """Starts the worker with one command after the other, the last one again and again."""

    def __init__(self, commands: Sequence[Sequence[str]], start: Callable[[], None]) -> None:
        self._lives = iter((*commands[:-1],))
        self._last = commands[-1]
        self._start = start

    async def launch(self, name: str, end: Callable[[str], None], on_fault: Callable[[int], None]) -> ProcessLife:
        self._start()
        process = await ChildProcess.start(*next(self._lives, self._last), env=environment())
        return ProcessLife(process, end, on_fault)


@asynccontextmanager
async def kept(
    listener: Listener, *commands: Sequence[str], ready_limit_s: float = 60.0, start: Callable[[], None] = lambda: None
) -> AsyncGenerator[WorkerKeeper]:
    """A keeper whose worker is started with one command after the other, the last one again and again."""
    keeper = WorkerKeeper("cpu", "", listener, lambda device: 1, Commands(commands, start), ready_limit_s)
    keeping = asyncio.create_task(keeper.keep())
    try:
        yield keeper
    finally:
        keeping.cancel()
        await asyncio.gather(keeping, return_exceptions=True)


async def test_a_process_that_cannot_be_started_is_told_and_tried_again() -> None:
    listener = Listener()
    async with kept(listener, NOT_THERE, DIES) as keeper:
        first, second = await listener.problems.get(), await listener.problems.get()
        assert "could not be started" in first.message
        assert "exit status 3" in second.message
        assert {first.reason, second.reason} == {ErrorReason.DRIVER_ERROR}
        assert keeper.last_problem == second.message


@pytest.mark.parametrize("problem", ["can't start new thread", "a bug"])
async def test_a_process_that_gets_no_thread_is_told_and_tried_again(problem: str) -> None:
    listener, starts = Listener(), 0

    def refuse() -> None:
        nonlocal starts
        starts += 1
        if starts == 1:
            raise RuntimeError(problem)

    async with kept(listener, DIES, start=refuse):
        first, second = await listener.problems.get(), await listener.problems.get()
    assert "could not be started" in first.message
    assert ("thread" in first.message) == ("thread" in problem)
    assert "exit status 3" in second.message


async def test_a_worker_that_hangs_before_it_is_ready_is_ended_and_told() -> None:
    listener = Listener()
    async with kept(listener, HANGS, ready_limit_s=0.1):
        problem = await listener.problems.get()
    assert "not ready within 0.1 s" in problem.message
    assert not [child for child in psutil.Process().children() if "sleep(1000)" in " ".join(child.cmdline())]


async def test_what_is_not_installed_is_told_typed_and_not_tried_again_by_itself() -> None:
    listener, starts = Listener(), 0

    def count() -> None:
        nonlocal starts
        starts += 1

    async with kept(listener, REFUSES, start=count) as keeper:
        problem = await listener.problems.get()
        assert (problem.reason, problem.message) == (ErrorReason.FEATURE_NOT_INSTALLED, "install it")
        assert keeper.refused
        assert listener.problems.empty()
        keeper.end("it was installed")
        await listener.problems.get()
    assert starts == 2


async def test_directml_where_it_is_not_installed_says_what_to_install(tmp_path: Path) -> None:
    listener = Listener()
    async with kept(listener, WorkerStart(name="directml:0").command()) as keeper:
        problem = await listener.problems.get()
        assert problem.reason is ErrorReason.FEATURE_NOT_INSTALLED
        assert "deviceops[directml]" in problem.message
        with closing(open_database(tmp_path)) as database:
            checkpoints, events = Checkpoints(database, tmp_path), EventLog(database, tmp_path)
        devices = Devices(events)
        clock = ClockWatch(events, ExpiryClock(), ClockStore(database, tmp_path), system_clocks())
        view = SystemView(Settings(), 0.0, checkpoints, "instance", [keeper], devices, clock, list, {}, Draining())
        assert view.readiness(domain_pb2.DOMAIN_INFERENCE) == system_status_pb2.READINESS_UNAVAILABLE
        domain = next(one for one in view.status().domains if one.domain == domain_pb2.DOMAIN_INFERENCE)
        assert "deviceops[directml]" in domain.detail
        assert view.status().workers[0].last_failure.reason == error_pb2.ERROR_REASON_FEATURE_NOT_INSTALLED


def test_a_worker_is_started_for_one_gpu_or_with_another_python() -> None:
    assert WorkerStart(name="cuda:3", uuid="GPU-1").command()[-2:] == ("cuda:3", "GPU-1")
    assert WorkerStart(name="cuda:3").command()[-1] == "cuda:3"
    assert WorkerStart(name="directml:0", python=Path("/opt/python")).command()[0] == str(Path("/opt/python"))


async def test_a_device_that_vanishes_while_its_process_is_being_started_has_none() -> None:
    listener = Listener()
    keepers: list[WorkerKeeper] = []
    async with kept(listener, HANGS, start=lambda: keepers[0].suspend()) as keeper:
        keepers.append(keeper)
        while keeper.state is not KeeperState.STOPPED:
            await listener.changed.wait()
            listener.changed.clear()
        assert keeper.pid is None
    assert listener.problems.empty()


class _Link:
    """The end of a worker that becomes ready and has finished a job, or has not."""

    device = a_device()

    def __init__(self, *, has_finished_work: bool) -> None:
        self.has_finished_work = has_finished_work

    async def describe(self) -> None:
        pass


class _Life:
    """A worker that dies as soon as it is served."""

    pid = 0

    def __init__(self, *, has_finished_work: bool) -> None:
        self.link = _Link(has_finished_work=has_finished_work)

    async def ended(self) -> str:
        return "it died"

    async def exit_detail(self) -> str:
        return "exit status -9"

    async def close(self) -> None:
        pass


class _Serving(Listener):
    """Takes workers that become ready."""

    async def arrived(self, name: str, lane: Lane) -> None:
        pass

    def left(self, lane: Lane, problem: DeviceOpsError | None) -> None:
        assert problem is not None
        self.problems.put_nowait(problem)


@pytest.mark.parametrize(("finished", "starts"), [([True] * 5, 5), ([True, True, False, True], 3), ([False] * 3, 2)])
async def test_a_worker_that_had_finished_a_job_is_started_again_without_a_pause(
    finished: list[bool], starts: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first start after a death has no pause either; the third life of the second list ends the starts at once."""
    monkeypatch.setattr(worker_keeper, "_FIRST_PAUSE_S", 1e6)
    monkeypatch.setattr(worker_keeper, "_LONGEST_PAUSE_S", 1e6)
    lives = iter(finished)

    class Lives:
        async def launch(self, name: str, end: Callable[[str], None], on_fault: Callable[[int], None]) -> Any:
            if (finished := next(lives, None)) is None:
                await asyncio.Event().wait()
            return _Life(has_finished_work=bool(finished))

    listener = _Serving()
    keeper = WorkerKeeper("sim-0", "", listener, lambda device: 1, Lives())
    keeping = asyncio.create_task(keeper.keep())
    for _ in range(starts):
        await listener.problems.get()
    for _ in range(100):
        await asyncio.sleep(0)
    keeping.cancel()
    await asyncio.gather(keeping, return_exceptions=True)
    assert listener.problems.empty()
