"""The nursery: its forks are like new processes, and its death costs nobody anything."""

import asyncio
import errno
import json
import os
import signal
import socket
import sys
from collections.abc import AsyncGenerator, Generator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any, cast

import psutil
import pytest
import pytest_asyncio
import structlog
from structlog.typing import EventDict

from server.stdio.channel import FrameChannel
from server.stdio.child import ChildProcess
from server.worker.fork_order import READY, Forked, ForkOrder, encode
from server.worker.given_nursery import GivenNursery
from server.worker.launcher import environment
from server.worker.nursery import _fork_for as fork_for  # pyright: ignore[reportPrivateUsage]
from server.worker.nursery_keeper import NurseryKeeper
from tests.server.stdio.child import PATH

pytestmark = [
    pytest.mark.asyncio(loop_scope="module"),
    pytest.mark.skipif(sys.platform != "linux", reason="workers are forked on Linux alone"),
]
COMMAND = (sys.executable, str(Path(__file__).with_name("telling_nursery.py")))
ENVIRONMENT = {**environment(), "PYTHONPATH": PATH}


@asynccontextmanager
async def kept(*command: str, answer_s: float = 30.0) -> AsyncGenerator[NurseryKeeper]:
    keeper = NurseryKeeper(ENVIRONMENT, command, answer_s)
    try:
        yield keeper
    finally:
        await keeper.close()


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def nursery() -> AsyncGenerator[NurseryKeeper]:
    async with kept(*COMMAND) as keeper:
        yield keeper


@asynccontextmanager
async def forked(nursery: NurseryKeeper, name: str = "cpu", uuid: str = "") -> AsyncGenerator[ChildProcess]:
    child = await nursery.fork(ForkOrder(name=name, uuid=uuid))
    assert child is not None
    try:
        yield child
    finally:
        child.close()
        await child.wait()


async def told(child: ChildProcess) -> dict[str, Any]:
    """What a worker found at its beginning."""
    line = asyncio.get_running_loop().create_future()
    seen = bytearray()

    def take(data: bytes) -> None:
        seen.extend(data)
        if seen.endswith(b"\n") and not line.done():
            line.set_result(json.loads(seen))

    child.listen(take, lambda error: None)
    return await line


async def test_a_fork_has_its_libraries_and_one_thread_and_no_cuda(nursery: NurseryKeeper) -> None:
    async with forked(nursery, "cuda:3", "GPU-1") as child:
        found = await told(child)
    assert found["tasks"] == 1
    assert not found["cuda"]
    assert not found["spoiled"]
    assert (found["name"], found["uuid"]) == ("cuda:3", "GPU-1")


async def test_a_fork_is_as_nice_as_the_server(nursery: NurseryKeeper) -> None:
    async with forked(nursery, "cuda:0") as child:
        assert (await told(child))["niceness"] == os.getpriority(os.PRIO_PROCESS, 0)


async def test_the_nursery_has_no_thread_that_outlives_a_fork(nursery: NurseryKeeper) -> None:
    async with forked(nursery) as child:
        await told(child)
        assert nursery.pid is not None
        assert psutil.Process(nursery.pid).num_threads() == 1


_IMPORTS = """
import os
from domains.device.on_device import forking
from server.worker import nursery

forking.import_libraries = lambda *modules: None
before = os.listdir("/proc/self/task")
for _ in range(100):
    nursery.import_behind_the_front()
    assert os.listdir("/proc/self/task") == before
"""


async def test_the_thread_that_imported_is_gone_before_the_first_fork() -> None:
    child = await asyncio.create_subprocess_exec(sys.executable, "-c", _IMPORTS, env=ENVIRONMENT)
    assert await child.wait() == 0


_NO_LIBRARIES = "import sys; sys.modules['torch'] = None; from server.worker import nursery; nursery.main()"


async def test_a_nursery_whose_server_died_while_it_started_ends_before_it_imports() -> None:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    ours.close()
    with theirs:
        child = await asyncio.create_subprocess_exec(
            sys.executable, "-c", _NO_LIBRARIES, stdin=theirs.fileno(), stderr=asyncio.subprocess.PIPE, env=ENVIRONMENT
        )
    assert await child.communicate() == (None, b"")
    assert child.returncode == 1


async def test_two_forks_draw_different_numbers(nursery: NurseryKeeper) -> None:
    async with forked(nursery) as first, forked(nursery) as second:
        one, other = (await told(first))["random"], (await told(second))["random"]
    assert len(one) == 4
    assert not [same for same, also in zip(one, other, strict=True) if same == also]


async def test_a_fork_shares_the_memory_of_its_libraries(nursery: NurseryKeeper) -> None:
    async with forked(nursery) as child:
        await told(child)
        assert nursery.pid is not None
        imported = psutil.Process(nursery.pid).memory_info().rss
        own = psutil.Process(child.pid).memory_full_info().uss
    assert own < imported / 5


async def test_a_fork_is_the_servers_child_and_tells_it_how_it_ends(nursery: NurseryKeeper) -> None:
    async with forked(nursery, "sim-0") as quiet, forked(nursery) as killed:
        assert (await told(quiet))["parent"] == os.getpid()
        assert quiet.returncode is None
        killed.kill()
        assert await killed.wait() == -signal.SIGKILL
        quiet.close_stdin()
        assert await quiet.wait() == len("sim-0")
    assert nursery.pid is not None
    assert not psutil.Process(nursery.pid).children()


async def test_a_nursery_that_hangs_is_replaced_and_its_workers_live_on() -> None:
    async with kept(*COMMAND, "light", answer_s=1.0) as nursery, forked(nursery) as worker:
        first = await told(worker)
        assert nursery.pid is not None
        with logged("nursery ready") as ready:
            os.kill(nursery.pid, signal.SIGSTOP)
            assert await nursery.fork(ForkOrder(name="cpu")) is None
            await ready.wait()
        async with forked(nursery) as another:
            second = await told(another)
        assert first["nursery"] != second["nursery"]
        worker.close_stdin()
        assert await worker.wait() == len("cpu")


@contextmanager
def logged(event: str) -> Generator[asyncio.Event]:
    """Set once this is logged."""
    seen = asyncio.Event()

    def look(logger: object, method: str, entry: EventDict) -> EventDict:
        if entry["event"] == event:
            seen.set()
        return entry

    with structlog.testing.capture_logs([look]):
        yield seen


@pytest.mark.parametrize(
    "command", [("/nowhere/python",), (sys.executable, "-c", "raise SystemExit(3)"), (sys.executable, "-c", "print(1)")]
)
async def test_without_a_nursery_nobody_waits(command: tuple[str, ...]) -> None:
    async with kept(*command) as nursery:
        assert await nursery.fork(ForkOrder(name="cpu")) is None


async def test_a_nursery_that_gets_no_thread_is_started_again(monkeypatch: pytest.MonkeyPatch) -> None:
    again = asyncio.Event()

    async def refuse(*_: Any, **__: Any) -> None:
        monkeypatch.setattr("server.worker.nursery_keeper.asyncio.create_subprocess_exec", refuse_again)
        raise RuntimeError("can't start new thread")

    async def refuse_again(*_: Any, **__: Any) -> None:
        again.set()
        raise OSError("no process either")

    monkeypatch.setattr("server.worker.nursery_keeper._FIRST_PAUSE_S", 0.0)
    monkeypatch.setattr("server.worker.nursery_keeper.asyncio.create_subprocess_exec", refuse)
    async with kept(*COMMAND) as nursery:
        assert await nursery.fork(ForkOrder(name="cpu")) is None
        await asyncio.wait_for(again.wait(), 10)


class PlayedNursery:
    """A nursery that answers as the test says. Takes the place of `GivenNursery`, and of its process."""

    pid, returncode = 1, None

    def __init__(self, forked_pid: int = 0) -> None:
        self._ours, self.end = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._ours.setblocking(False)
        self.end.sendall(READY)
        self.end.sendall(encode(Forked(pid=forked_pid)))
        self.killed = asyncio.Event()

    def take_over(self, environment: object) -> tuple[socket.socket, Any]:
        return self._ours, self

    def kill(self) -> None:
        self.killed.set()

    async def wait(self) -> int:
        await self.killed.wait()
        return 0


@asynccontextmanager
async def played(nursery: PlayedNursery) -> AsyncGenerator[NurseryKeeper]:
    with nursery.end:
        keeper = NurseryKeeper(ENVIRONMENT, ("/nowhere/python",), given=cast(GivenNursery, nursery))
        try:
            yield keeper
        finally:
            await keeper.close()


def refused(*_: object) -> None:
    raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))


async def test_a_nursery_that_gets_no_process_lives_on() -> None:
    """Another one would need a process too, and seconds to import."""
    nursery = PlayedNursery()
    async with played(nursery) as keeper:
        assert await keeper.fork(ForkOrder(name="cpu")) is None
        assert not nursery.killed.is_set()


@pytest.mark.parametrize("refusing", ["os.pipe", "socket.socketpair"])
async def test_a_server_without_descriptors_keeps_its_nursery(monkeypatch: pytest.MonkeyPatch, refusing: str) -> None:
    nursery = PlayedNursery()
    made = list[int]()

    def pipe() -> tuple[int, int]:
        made.extend(ends := os.pipe2(os.O_CLOEXEC))
        return ends

    async with played(nursery) as keeper:
        monkeypatch.setattr("server.worker.nursery_keeper.os.pipe", pipe)
        monkeypatch.setattr(f"server.worker.nursery_keeper.{refusing}", refused)
        with pytest.raises(OSError, match=os.strerror(errno.EMFILE)):
            await keeper.fork(ForkOrder(name="cpu"))
        monkeypatch.undo()
        assert not nursery.killed.is_set()
        for end in made:
            with pytest.raises(OSError, match=os.strerror(errno.EBADF)):
                os.fstat(end)
        assert await keeper.fork(ForkOrder(name="cpu")) is None


async def test_a_nursery_that_ends_is_replaced() -> None:
    nursery = PlayedNursery()
    async with played(nursery) as keeper:
        await keeper.fork(ForkOrder(name="cpu"))
        nursery.end.close()
        assert await keeper.fork(ForkOrder(name="cpu")) is None
        assert nursery.killed.is_set()


async def test_a_nursery_without_descriptors_answers_that_it_forks_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    assert fork_for(os.getppid(), []) == 0
    monkeypatch.setattr("server.worker.nursery.os.pipe", refused)
    assert fork_for(os.getppid(), [0, 1]) == 0


async def test_a_fork_that_cannot_use_cuda_becomes_a_new_process() -> None:
    async with (
        kept(*COMMAND, "spoiled") as nursery,
        forked(nursery, "cuda:0", "GPU-1") as child,
        FrameChannel(child) as channel,
    ):
        assert await channel.hello() is not None
        process = psutil.Process(child.pid)
        assert "server.worker.process" in process.cmdline()
        assert process.cmdline()[-2:] == ["cuda:0", "GPU-1"]
        assert process.ppid() == os.getpid()
