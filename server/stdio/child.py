"""A child process and the pipe to it. Received bytes are passed on without a further copy."""

import asyncio
import os
import socket
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Self, cast

from server.stdio.adopted import AdoptedProcess

BUFFER_BYTES = 1024 * 1024
"""Requested size of the pipe's buffers; the system may allow less."""


class ChildProcess(asyncio.SubprocessProtocol):
    """A running child, with its stdin to write to, and its stdout, whose bytes go to the callbacks of `listen`."""

    def __init__(self) -> None:
        loop = asyncio.get_running_loop()
        self._transport: asyncio.SubprocessTransport | None = None
        self._output: asyncio.ReadTransport | None = None
        """The transport of stdout if it is a socket instead of asyncio's pipe."""
        self._exited: asyncio.Future[int] = loop.create_future()
        self._early: list[bytes] = []
        """Bytes that came before `listen`."""
        self._on_bytes: Callable[[bytes], None] = self._early.append
        self._output_ended: asyncio.Future[None] = loop.create_future()
        """Done when stdout has ended; an error if reading failed."""
        self._room = asyncio.Event()
        self._room.set()
        self._broken = False
        """Whether stdin has lost its reader."""

    @classmethod
    async def start(cls, *command: str, env: Mapping[str, str] | None = None, stderr: int | None = None) -> Self:
        """Start the command. `stderr`: the descriptor of the child's stderr; None: this process's. Raises `OSError`."""
        if sys.platform == "win32":
            child = await cls._exec(asyncio.subprocess.PIPE, command, env, stderr)
        else:
            # Linux locks a pipe while either end copies; the ends of a socket copy at the same time, twice as fast.
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
        """Adopt a child that another process forked, with this process's ends of its pipe. Raises `OSError`.

        Owns both ends from the start: after an error they are closed, and the child ends with its pipe.
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

    @classmethod
    def watched(cls, pid: int) -> Self:
        """A child without a pipe to it, to wait for and to kill. Raises `OSError`."""
        child = cls()
        child._transport = AdoptedProcess(child, pid)
        return child

    async def _read_from(self, ours: socket.socket) -> None:
        self._output, _ = await asyncio.get_running_loop().connect_read_pipe(lambda: _Output(self), ours)
        if hasattr(self._output, "max_size"):
            # asyncio reads 256 KiB at once by default; the type stubs lack the attribute.
            setattr(self._output, "max_size", BUFFER_BYTES)  # noqa: B010

    @property
    def pid(self) -> int:
        """Process id. No other process has it before `close`."""
        return self._process.get_pid()

    @property
    def returncode(self) -> int | None:
        """Exit status, negative for a signal; None: the child runs."""
        return self._exited.result() if self._exited.done() else None

    def kill(self) -> None:
        """Send SIGKILL if the child runs."""
        if self.returncode is None:
            self._process.kill()

    async def wait(self) -> int:
        """Wait for the end of the child; returns its exit status."""
        return await asyncio.shield(self._exited)

    def close(self) -> None:
        """Kill the child if it runs, and close both ends of the pipe."""
        self._process.close()
        if self._output is not None:
            self._output.close()

    def listen(self, on_bytes: Callable[[bytes], None], on_end: Callable[[OSError | None], None]) -> None:
        """Pass all bytes of stdout, past and future, to `on_bytes`, then call `on_end` once: with None, or a reading error.

        The callbacks must not raise.
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
        """Bytes that were written and are not in the pipe yet."""
        return self._stdin.get_write_buffer_size()

    def write(self, *pieces: bytes) -> None:
        """Write the pieces to stdin in order; does nothing if stdin is closed. Never waits, see `drain`."""
        stdin = self._stdin
        if not (self._broken or stdin.is_closing()):
            for piece in pieces:
                stdin.write(piece)

    async def drain(self) -> None:
        """Wait until stdin has room. Raises `ConnectionError` if it has lost its reader."""
        await self._room.wait()
        if self._broken:
            raise ConnectionResetError("the child's stdin is closed")

    def close_stdin(self) -> None:
        """Close stdin after all written bytes have gone out."""
        self._stdin.close()

    @property
    def _process(self) -> asyncio.SubprocessTransport:
        assert self._transport is not None, "only `start` makes one"
        return self._transport

    @property
    def _stdin(self) -> asyncio.WriteTransport:
        return cast(asyncio.WriteTransport, self._process.get_pipe_transport(0))

    # Called by asyncio.

    def pipe_data_received(self, fd: int, data: bytes) -> None:
        """Take bytes of stdout."""
        self._on_bytes(data)

    def pipe_connection_lost(self, fd: int, exc: Exception | None) -> None:
        """Stdin (0) or stdout (1) has ended."""
        if fd == 0:
            self._broken = True
            self._room.set()
        elif isinstance(exc, OSError):
            self._output_ended.set_exception(exc)
        else:
            self._output_ended.set_result(None)

    def pause_writing(self) -> None:
        """Stdin is full."""
        self._room.clear()

    def resume_writing(self) -> None:
        """Stdin has room again."""
        self._room.set()

    def process_exited(self) -> None:
        """The child has ended."""
        status = self._process.get_returncode()
        assert status is not None
        self._exited.set_result(status)


class _Output(asyncio.Protocol):
    """Passes events of a stdout that is a socket on, like those of a pipe."""

    def __init__(self, child: ChildProcess) -> None:
        self._child = child

    def data_received(self, data: bytes) -> None:
        """Pass bytes on."""
        self._child.pipe_data_received(1, data)

    def connection_lost(self, exc: Exception | None) -> None:
        """Pass the end on."""
        self._child.pipe_connection_lost(1, exc)
