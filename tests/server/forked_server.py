"""Turns a fork of a process that has imported everything into a server, or into its nursery.

The server is the program that `python -m server` starts, without the two seconds in which it imports itself.
"""

import atexit
import os
import runpy
import signal
import socket
import sys
import tempfile
import traceback
from collections.abc import Mapping, Sequence
from typing import NoReturn

from domains.device.on_device.forking import fresh_randomness, import_libraries
from server.cli import main as deviceops
from server.worker import given_nursery, nursery

IMPORTED = (*nursery.LIBRARIES, "server.app", "server.cli.app")


def import_everything() -> None:
    """Import what a nursery and a server import. The process may be forked afterwards."""
    # As `server.cli.app.main` does, before gRPC reads it: while it is imported.
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    import_libraries(*IMPORTED)


def become_server(
    command: Sequence[str],
    environment: Mapping[str, str],
    streams: Mapping[int, int],
    *,
    hold: int | None = None,
    execs: bool = False,
) -> None:
    """Run the command, which begins with `python -m server`, in this process, with a child that is to be its nursery.

    `streams`: for a standard stream's number, the descriptor that takes its place. `hold`: a pipe whose end the nursery
    awaits before its first answer. `execs`: start any command with `exec`, which imports again. Returns in the child, at its
    end.
    """
    tempfile.tempdir = None  # The folder of the variables that are still to come.
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    server = os.getpid()
    child = os.fork()
    if not child:
        ours.close()
        for fd in streams.values():
            os.close(fd)
        with open(os.devnull, "wb") as nothing:
            os.dup2(nothing.fileno(), 1)
        if hold is not None:
            os.read(hold, 1)
            os.close(hold)
        nursery.serve_given(theirs, server)
        return
    theirs.close()
    if hold is not None:
        os.close(hold)
    _settle(streams)
    os.set_inheritable(ours.fileno(), True)
    whole = {**environment, given_nursery.VARIABLE: f"{child}:{ours.detach()}"}
    if execs:
        os.execvpe(command[0], list(command), whole)
    _run(command, whole)


def become_module(command: Sequence[str], environment: Mapping[str, str], streams: Mapping[int, int]) -> NoReturn:
    """Run the command, which is `python -m MODULE …`, in this process. `streams`: as of `become_server`."""
    tempfile.tempdir = None
    _settle(streams)
    _prepare(command, environment)
    status = 0
    try:
        runpy.run_module(command[2], run_name="__main__", alter_sys=True)
    except SystemExit as ended:
        status = ended.code if isinstance(ended.code, int) else int(ended.code is not None)
    except BaseException:
        traceback.print_exc()
        status = 1
    _end(status)


def _settle(streams: Mapping[int, int]) -> None:
    """Let descriptors take the place of the standard streams, and end by the signals that end a new process."""
    for place, fd in streams.items():
        os.dup2(fd, place)
        os.close(fd)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)


def _run(command: Sequence[str], environment: Mapping[str, str]) -> NoReturn:
    _prepare(command, environment)
    _end(_status_of_main())


def _prepare(command: Sequence[str], environment: Mapping[str, str]) -> None:
    """Give this process the variables, arguments and streams of the command."""
    os.environ.clear()
    os.environ.update(environment)
    fresh_randomness()
    sys.argv = list(command[2:])
    sys.stdin = open(0, encoding="utf-8", closefd=False)  # noqa: SIM115
    sys.stdout = open(1, "w", encoding="utf-8", closefd=False)  # noqa: SIM115
    sys.stderr = open(2, "w", encoding="utf-8", errors="backslashreplace", closefd=False)  # noqa: SIM115


def _status_of_main() -> int:
    try:
        deviceops()
    except SystemExit as ended:
        return ended.code if isinstance(ended.code, int) else 1
    return 0


def _end(status: int) -> NoReturn:
    """End this process as an interpreter does, without freeing one by one the objects that it shares."""
    atexit._run_exitfuncs()  # pyright: ignore[reportPrivateUsage]
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)
