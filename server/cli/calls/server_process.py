"""Starts a server for one command if none runs, and ends it with the command."""

from __future__ import annotations

import collections
import contextlib
import os
import subprocess
import sys
import tempfile
import threading
from collections.abc import Generator, Sequence
from pathlib import Path

from server.cli.calls.address import DEFAULT_ADDRESS
from server.cli.calls.connection import Connection, connect
from server.cli.console.failure import USAGE, CliError, unreachable
from server.cli.console.printing import notice

SERVING = "deviceops: serving on "
"""A server prints this on stdout, followed by its addresses, once it can be called."""

_END_S = 60
"""Seconds that a server may take to end; running jobs first reach a safe point."""


@contextlib.contextmanager
def any_server(address: str | None, model_roots: Sequence[Path] = ()) -> Generator[Connection]:
    """A connection to the server at `address`. Raises `CliError` if no server answers there.

    Without an address: a connection to the default address, or if no server answers, to a server started for the command,
    which looks for models in `model_roots`.
    """
    connection = connect(address)
    if connection.answers():
        with connection:
            yield connection
        return
    connection.channel.close()
    if address is not None:
        raise CliError(unreachable(connection.address), USAGE)
    with own_server(model_roots) as own:
        yield own


@contextlib.contextmanager
def own_server(model_roots: Sequence[Path] = ()) -> Generator[Connection]:
    """A new server on a free loopback port with a temporary state folder, while the block runs."""
    with tempfile.TemporaryDirectory(prefix="deviceops-", ignore_cleanup_errors=True) as folder:
        log = Path(folder, "server.log")
        with log.open("wb") as stderr:
            process = _start(Path(folder, "state"), stderr.fileno(), model_roots)
        try:
            address = _address_of(process, log)
            notice(f"No server at {DEFAULT_ADDRESS}: started one at {address} for this command alone.")
            notice("Its device worker needs some seconds until the first job can start.")
            with Connection(address, is_alive=lambda: process.poll() is None) as connection:
                yield connection
        finally:
            _end(process)


def _start(state: Path, stderr: int, model_roots: Sequence[Path]) -> subprocess.Popen[str]:
    # `-P`: Python must not import a folder named `server` in the working directory.
    command = [sys.executable, "-P", "-m", "server.cli", "serve", "--host", "127.0.0.1", "--port", "0"]
    command += ["--state", str(state), "--end-with-stdin"]
    command += [word for root in model_roots for word in ("--model-root", str(root))]
    environment = {name: value for name, value in os.environ.items() if name != "DEVICEOPS_SOCKET"}
    new_group = getattr(subprocess, "CREATE_NEW_PROCESS_GROUP", 0)
    return subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=stderr,
        env=environment,
        text=True,
        # Ctrl-C is for the command, which cancels its job; the server must run on to do that.
        start_new_session=True,
        creationflags=new_group,
    )


def _address_of(process: subprocess.Popen[str], log: Path) -> str:
    """The server's address, once it serves. Raises `CliError` with the end of the server's log if it ends first."""
    assert process.stdout is not None
    for line in process.stdout:
        if line.startswith(SERVING):
            # Read on: further output must not fill the pipe.
            threading.Thread(target=collections.deque, args=(process.stdout, 0), daemon=True).start()
            return line.removeprefix(SERVING).split()[0]
    words = log.read_text(errors="replace").strip().splitlines()[-5:]
    raise CliError("\n  ".join(["the server did not start:", *(words or ["it ended without a word"])]))


def _end(process: subprocess.Popen[str]) -> None:
    assert process.stdin is not None
    # The server ends as by SIGTERM, which Windows cannot send to another process.
    with contextlib.suppress(BrokenPipeError):
        process.stdin.close()
    try:
        process.wait(_END_S)
    except subprocess.TimeoutExpired:
        notice(f"The server did not end within {_END_S} s and was killed.")
        process.kill()
        process.wait()
    assert process.stdout is not None
    process.stdout.close()
