"""The server's end of the nursery: starts it, sends it fork orders, and replaces it when it dies. Linux only."""

import asyncio
import os
import socket
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from typing import Self

import msgspec
import structlog

from server.lifetime import adopting
from server.stdio.child import BUFFER_BYTES, ChildProcess
from server.worker.fork_order import PACKET_BYTES, READY, Forked, ForkOrder, decode_answer, encode
from server.worker.given_nursery import GivenNursery

COMMAND = (sys.executable, "-m", "server.worker.nursery")
_READY_S = 120.0
"""A nursery that imports for longer counts as hung."""
ANSWER_S = 3.0
"""A nursery that answers a fork order later counts as hung. A fork on an idle machine takes a hundredth of it."""
_SHORT_LIFE_S = 30.0
"""A nursery that lived shorter is restarted after a pause, which doubles each time."""
_FIRST_PAUSE_S = 0.5
_LONGEST_PAUSE_S = 60.0

_log = structlog.get_logger()


class _Ends:
    """The pipe to a worker and the socket from it. Closes what was not kept. Raises `OSError` when it is made."""

    def __init__(self) -> None:
        with ExitStack() as made:
            read, self._write = os.pipe()
            made.callback(os.close, read)
            made.callback(os.close, self._write)
            self._output, theirs = socket.socketpair()
            made.enter_context(theirs)
            made.enter_context(self._output)
            theirs.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, BUFFER_BYTES)
            self.theirs = [read, theirs.fileno()]
            """The worker's stdin and stdout."""
            self._worker = theirs
            self._open = made.pop_all()

    def kept(self) -> tuple[int, socket.socket]:
        """This process's ends, which the caller owns from now on."""
        self._open.pop_all()
        os.close(self.theirs[0])
        self._worker.close()
        return self._write, self._output

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._open.close()


class NurseryKeeper:
    """Keeps one nursery running from the first order on."""

    def __init__(
        self,
        environment: Mapping[str, str],
        command: Sequence[str] = COMMAND,
        answer_s: float = ANSWER_S,
        given: GivenNursery | None = None,
    ) -> None:
        """`environment`: variables of the nursery and its forks. `answer_s`: see `ANSWER_S`. `given`: the first nursery;
        None: it is started too."""
        self._given = given
        self._answer_s = answer_s
        self._environment = environment
        self._command = command
        self._process: asyncio.subprocess.Process | ChildProcess | None = None
        self._life = asyncio.Future[socket.socket | None]()
        """The socket of the present nursery, done when it can fork; None: workers are started without it."""
        self._keeping: asyncio.Task[None] | None = None
        self._one_order = asyncio.Lock()

    @property
    def pid(self) -> int | None:
        """Process id of the nursery; None: none runs now."""
        return self._process.pid if self._process else None

    async def fork(self, order: ForkOrder) -> ChildProcess | None:
        """Fork a new worker; None: no nursery can fork it. Raises `OSError` if this process lacks descriptors for it.

        Waits for a nursery that is starting: a worker that imports torch itself would not be ready sooner.
        """
        if self._keeping is None:
            self._keeping = asyncio.get_running_loop().create_task(self._keep())
        async with self._one_order:
            control = await asyncio.shield(self._life)
            if control is None:
                return None
            # The nursery is replaced only for its own faults: the next one imports for seconds.
            with _Ends() as ends:
                try:
                    answer = await self._answer(control, order, ends)
                except (OSError, TimeoutError, msgspec.DecodeError) as error:
                    _log.warning("nursery does not fork", error=str(error) or type(error).__name__, pid=self.pid)
                    self._replace()
                    return None
                except BaseException:
                    # A late answer would be taken for the answer to the next order.
                    self._replace()
                    raise
                if not answer.pid:
                    _log.warning("nursery does not fork", error="the system refuses it a process", pid=self.pid)
                    return None
                write, output = ends.kept()
            return await ChildProcess.adopt(answer.pid, write, output)

    async def close(self) -> None:
        """End the nursery."""
        if self._keeping is not None:
            self._keeping.cancel()
            await asyncio.gather(self._keeping, return_exceptions=True)

    async def _answer(self, control: socket.socket, order: ForkOrder, ends: _Ends) -> Forked:
        """The nursery's answer. Raises `OSError` or `DecodeError` if it has ended, `TimeoutError` if it hangs."""
        assert sys.platform != "win32", "there is no nursery: see `adopted.can_adopt`"
        with adopting():
            socket.send_fds(control, [encode(order)], ends.theirs)
            async with asyncio.timeout(self._answer_s):
                packet = await asyncio.get_running_loop().sock_recv(control, PACKET_BYTES)
        if not packet:
            raise ConnectionResetError("the nursery has ended")
        return decode_answer(packet)

    def _replace(self) -> None:
        """Kill the present nursery; `_keep` starts the next."""
        self._set_life(None)
        if self._process is not None and self._process.returncode is None:
            self._process.kill()

    async def _keep(self) -> None:
        pause_s = 0.0
        while True:
            begin_s = time.monotonic()
            await self._live()
            young = time.monotonic() - begin_s < _SHORT_LIFE_S
            pause_s = min(max(pause_s * 2, _FIRST_PAUSE_S), _LONGEST_PAUSE_S) if young else 0.0
            await asyncio.sleep(pause_s)
            self._life = asyncio.Future()

    async def _live(self) -> None:
        """Run one nursery from its start to its end."""
        assert sys.platform != "win32", "there is no nursery: see `adopted.can_adopt`"
        given, self._given = self._given, None
        ours: socket.socket | None = None
        try:
            ours, self._process = given.take_over(self._environment) if given else await self._started()
            async with asyncio.timeout(_READY_S):
                packet = await asyncio.get_running_loop().sock_recv(ours, PACKET_BYTES)
            if packet == READY:
                _log.info("nursery ready", pid=self.pid)
                self._set_life(ours)
                await self._process.wait()
        except Exception as error:
            # The system may have no memory, descriptor or thread now. Whatever it is, the next nursery is started later.
            _log.warning("nursery could not be started", error=str(error) or type(error).__name__)
        finally:
            self._replace()
            if self._process is not None:
                status = await self._process.wait()
                _log.info("nursery ended", pid=self.pid, exit_status=status)
            self._process = None
            if ours is not None:
                ours.close()

    async def _started(self) -> tuple[socket.socket, asyncio.subprocess.Process]:
        """A new nursery, and this end of its socket. Raises `OSError`."""
        assert sys.platform != "win32", "there is no nursery: see `adopted.can_adopt`"
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        ours.setblocking(False)
        try:
            with theirs:
                return ours, await asyncio.create_subprocess_exec(
                    *self._command, stdin=theirs.fileno(), stdout=asyncio.subprocess.DEVNULL, env=self._environment
                )
        except BaseException:
            ours.close()
            raise

    def _set_life(self, control: socket.socket | None) -> None:
        if self._life.done():
            self._life = asyncio.Future()
        self._life.set_result(control)
