"""Starts servers that are forks of one process, with a nursery that is another, so that a hundred servers import themselves
and torch once and not each.

The servers are the same program, and start their next nursery themselves when the first dies.
"""

import os
import socket
import subprocess
import sys
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from typing import IO, Protocol

import msgspec
import psutil

from server.lifetime import adopting
from server.stdio.adopted import can_adopt
from server.worker import launcher
from server.worker.allowed_environment import allowed
from tests.server.start_order import Start

_START_S = 120.0


class Process(Protocol):
    """What tests need of a server's process; `subprocess.Popen` has it."""

    pid: int
    stdout: IO[str] | None

    def poll(self) -> int | None: ...
    def wait(self, timeout: float | None = None) -> int: ...
    def send_signal(self, sig: int, /) -> None: ...
    def kill(self) -> None: ...


class _Adopted:
    """A child that the kernel gave to this process."""

    def __init__(self, pid: int, stdout: IO[str]) -> None:
        self.pid = pid
        self.stdout: IO[str] | None = stdout
        self._process = psutil.Process(pid)

    def poll(self) -> int | None:
        """Its exit status; None: it runs."""
        try:
            return self.wait(0)
        except psutil.TimeoutExpired:
            return None

    def wait(self, timeout: float | None = None) -> int:
        """Its exit status, negative for a signal."""
        status = self._process.wait(timeout)
        assert status is not None
        return status

    def send_signal(self, sig: int, /) -> None:
        """Send it a signal if it runs."""
        if self.poll() is None:
            self._process.send_signal(sig)

    def kill(self) -> None:
        """Send SIGKILL if it runs."""
        self.send_signal(9)


class NurserySource:
    """The process to fork from, started with the first server."""

    def __init__(self, *, execs: bool = False) -> None:
        self.execs = execs
        """Whether the nursery alone is a fork, and a server is started by its command."""
        self._variables = _at_import(os.environ)
        self._process: subprocess.Popen[bytes] | None = None
        self._control, self._theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)

    def fits(self, environment: Mapping[str, str]) -> bool:
        """Whether a nursery of a server with this environment would have imported the same."""
        return _at_import(environment) == self._variables

    def start(
        self,
        command: Sequence[str],
        environment: Mapping[str, str],
        stderr: int,
        hold: int | None = None,
        stdin: int | None = None,
    ) -> Process:
        """Start a server, or another module; as `subprocess.Popen`, with its stdout as text. `hold`: see `become_server`."""
        self._begin()
        read, write = os.pipe()
        fds = [write, stderr, *(fd for fd in (stdin, hold) if fd is not None)]
        order = Start(
            command=list(command),
            environment=dict(environment),
            execs=self.execs,
            held=hold is not None,
            stdin=stdin is not None,
        )
        try:
            with adopting():
                socket.send_fds(self._control, [msgspec.msgpack.encode(order)], fds)
                pid = int(self._control.recv(4096))
        finally:
            os.close(write)
        return _Adopted(pid, os.fdopen(read))

    def close(self) -> None:
        """End the process; its servers live on."""
        self._control.close()
        self._theirs.close()
        if self._process is not None:
            self._process.wait()

    def _begin(self) -> None:
        if self._process is not None:
            return
        command = [sys.executable, "-m", "tests.server.nursery_source_process"]
        self._process = subprocess.Popen(command, stdin=self._theirs.fileno(), env=launcher.environment())
        self._theirs.close()
        self._control.settimeout(_START_S)
        assert self._control.recv(4096)


def _at_import(environment: Mapping[str, str]) -> dict[str, str]:
    """The variables that libraries may read while they are imported. The folder of temporary files is not one, nor is the
    cache that torch names while it is imported: in a test process that imports torch late, no later server would fit."""
    left_out = ("DEVICEOPS_", "TMPDIR", "TORCHINDUCTOR_CACHE_DIR")
    return {name: value for name, value in allowed(environment).items() if not name.startswith(left_out)}


_present: NurserySource | None = None


def present() -> NurserySource | None:
    """The source of this test session; None: each server starts its own nursery."""
    return _present


@contextmanager
def opened(*, execs: bool = False) -> Generator[None]:
    """Servers are started from a source while the block runs, where the system can do it. `execs`: see `NurserySource`."""
    global _present
    if sys.platform != "linux" or not can_adopt():
        yield
        return
    _present = NurserySource(execs=execs)
    try:
        yield
    finally:
        _present.close()
        _present = None


@contextmanager
def forking() -> Generator[None]:
    """Servers that start in the block are forks of the source, if there is one, whatever `opened` said."""
    source = _present
    if source is None:
        yield
        return
    before, source.execs = source.execs, False
    try:
        yield
    finally:
        source.execs = before
