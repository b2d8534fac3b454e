"""A child process and the pipe to it. Bytes come as the system hands them over: no stream in between copies them again."""

import asyncio
import os
import socket
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Self, cast

from server.stdio.adopted import AdoptedProcess

BUFFER_BYTES = 1024 * 1024
"""Asked for between the child and us; the system may allow less."""


class ChildProcess(asyncio.SubprocessProtocol):
    """A running child, its stdin to write to and its stdout, whose bytes go to whoever listens."""

    def __init__(self) -> None:
        loop = asyncio.get_running_loop()
        self._transport: asyncio.SubprocessTransport | None = None
        self._output: asyncio.ReadTransport | None = None
        """Of its stdout, where that is not asyncio's own pipe."""
        self._exited: asyncio.Future[int] = loop.create_future()
        self._early: list[bytes] = []
        """What came before anybody listened."""
        self._on_bytes: Callable[[bytes], None] = self._early.append
        self._output_ended: asyncio.Future[None] = loop.create_future()
        """Done when no more bytes come; an error if reading failed."""
        self._room = asyncio.Event()
        self._room.set()
        self._broken = False
        """Nobody reads its stdin any more."""

    @classmethod
    async def start(cls, *command: str, env: Mapping[str, str] | None = None, stderr: int | None = None) -> Self:
        """Start the command; `stderr`: a descriptor that takes the place of ours. Raises `OSError`."""
        if sys.platform == "win32":
            child = await cls._exec(asyncio.subprocess.PIPE, command, env, stderr)
        else:
            # Linux locks a pipe for as long as either end copies; the ends of a socket copy at the same time: twice as fast.
            ours, childs = socket.socketpair()
            with childs:
                childs.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, BUFFER_BYTES)
                try:
                    child = await cls._exec(childs.fileno(), command, env, stderr)
                except BaseException:
                    ours.close()
                    raise
            try:
                await child._read_from(ours)
            except BaseException:
                child.close()
                ours.close()
                raise
        return child

    @classmethod
    async def _exec(
        cls, stdout: int, command: Sequence[str], env: Mapping[str, str] | None, stderr: int | None
    ) -> Self:
        loop, pipe = asyncio.get_running_loop(), asyncio.subprocess.PIPE
        transport, child = await loop.subprocess_exec(cls, *command, stdin=pipe, stdout=stdout, stderr=stderr, env=env)
        child._transport = transport
        return child

    @classmethod
    async def adopt(cls, pid: int, stdin: int, stdout: socket.socket) -> Self:
        """A child that another process forked and left to this one, with our ends of its pipe. Raises `OSError`.

        Takes the ends over, also where it fails; the child is then left to itself, and ends with its pipe.
        """
        child = cls()
        try:
            child._transport = transport = AdoptedProcess(child, pid)
        except BaseException:
            os.close(stdin)
            stdout.close()
            raise
        try:
            await transport.connect_stdin(stdin)
            await child._read_from(stdout)
        except BaseException:
            child.close()
            stdout.close()
            raise
        return child

    async def _read_from(self, ours: socket.socket) -> None:
        self._output, _ = await asyncio.get_running_loop().connect_read_pipe(lambda: _Output(self), ours)
        if hasattr(self._output, "max_size"):
            # asyncio takes 256 KiB at once otherwise; its type does not tell of it.
            setattr(self._output, "max_size", BUFFER_BYTES)  # noqa: B010

    @property
    def pid(self) -> int:
        """Its process id; not another's before `close`."""
        return self._process.get_pid()

    @property
    def returncode(self) -> int | None:
        """Its exit status, a signal as a negative number; None: it runs."""
        return self._exited.result() if self._exited.done() else None

    def kill(self) -> None:
        """SIGKILL, if it still runs."""
        if self.returncode is None:
            self._process.kill()

    async def wait(self) -> int:
        """Its exit status, once it has ended."""
        return await asyncio.shield(self._exited)

    def close(self) -> None:
        """Kill it if it still runs, and give back both ends of the pipe."""
        self._process.close()
        if self._output is not None:
            self._output.close()

    def listen(self, on_bytes: Callable[[bytes], None], on_end: Callable[[OSError | None], None]) -> None:
        """Hand over all bytes that its stdout has given and will give, then once the end: None, or why reading failed.

        Neither may raise.
        """
        early, self._early = self._early, []
        self._on_bytes = on_bytes
        for data in early:
            on_bytes(data)

        def ended(output: asyncio.Future[None]) -> None:
            error = output.exception()
            on_end(error if isinstance(error, OSError) else None)

        self._output_ended.add_done_callback(ended)

    @property
    def backlog_bytes(self) -> int:
        """What was written and is not in the pipe yet."""
        return self._stdin.get_write_buffer_size()

    def write(self, *pieces: bytes) -> None:
        """To its stdin, one behind the other; does nothing once that is closed. Never waits: see `drain`."""
        stdin = self._stdin
        if not (self._broken or stdin.is_closing()):
            for piece in pieces:
                stdin.write(piece)

    async def drain(self) -> None:
        """Wait until there is room. Raises `ConnectionError` where nobody reads any more."""
        await self._room.wait()
        if self._broken:
            raise ConnectionResetError("the child's stdin is closed")

    def close_stdin(self) -> None:
        """After what was written has gone out."""
        self._stdin.close()

    @property
    def _process(self) -> asyncio.SubprocessTransport:
        assert self._transport is not None, "only `start` makes one"
        return self._transport

    @property
    def _stdin(self) -> asyncio.WriteTransport:
        return cast(asyncio.WriteTransport, self._process.get_pipe_transport(0))

    # For asyncio.

    def pipe_data_received(self, fd: int, data: bytes) -> None:
        """Its stdout."""
        self._on_bytes(data)

    def pipe_connection_lost(self, fd: int, exc: Exception | None) -> None:
        """Its stdin (0) or stdout (1) is over."""
        if fd == 0:
            self._broken = True
            self._room.set()
        elif isinstance(exc, OSError):
            self._output_ended.set_exception(exc)
        else:
            self._output_ended.set_result(None)

    def pause_writing(self) -> None:
        """Its stdin is full."""
        self._room.clear()

    def resume_writing(self) -> None:
        """It has room again."""
        self._room.set()

    def process_exited(self) -> None:
        """It has ended."""
        status = self._process.get_returncode()
        assert status is not None
        self._exited.set_result(status)


class _Output(asyncio.Protocol):
    """The child's stdout as a socket: told like a pipe of its own."""

    def __init__(self, child: ChildProcess) -> None:
        self._child = child

    def data_received(self, data: bytes) -> None:
        """A piece."""
        self._child.pipe_data_received(1, data)

    def connection_lost(self, exc: Exception | None) -> None:
        """The end."""
        self._child.pipe_connection_lost(1, exc)
