"""A child process and the pipe to it. Bytes come as the system hands them over: no stream in between copies them again."""

import asyncio
from collections.abc import Callable, Mapping
from typing import Self, cast

from server.stdio.pipe import PIPE_BYTES


class ChildProcess(asyncio.SubprocessProtocol):
    """A running child, its stdin to write to and its stdout, whose bytes go to whoever listens."""

    def __init__(self) -> None:
        loop = asyncio.get_running_loop()
        self._transport: asyncio.SubprocessTransport | None = None
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
        loop = asyncio.get_running_loop()
        pipe = asyncio.subprocess.PIPE
        transport, child = await loop.subprocess_exec(cls, *command, stdin=pipe, stdout=pipe, stderr=stderr, env=env)
        child._transport = transport
        output = transport.get_pipe_transport(1)
        if hasattr(output, "max_size"):
            # Half of the pipe at once: the child fills one half while the other is emptied. asyncio's own 256 KiB cost twice
            # the turns of the loop, all of it keeps the child waiting.
            setattr(output, "max_size", PIPE_BYTES // 2)  # noqa: B010  # its type does not tell of it
        return child

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
