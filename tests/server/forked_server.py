"""Turns a fork of a process that has imported everything into a server, or into its nursery.

The server is the program that `python -m server` starts, without the two seconds in which it imports itself.
"""

import atexit
import os
import signal
import socket
import sys
import tempfile
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
    for place, fd in streams.items():
        os.dup2(fd, place)
        os.close(fd)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    os.set_inheritable(ours.fileno(), True)
    whole = {**environment, given_nursery.VARIABLE: f"{child}:{ours.detach()}"}
    if execs:
        os.execvpe(command[0], list(command), whole)
    _run(command, whole)


def _run(command: Sequence[str], environment: Mapping[str, str]) -> NoReturn:
    os.environ.clear()
    os.environ.update(environment)
    fresh_randomness()
    sys.argv = ["server", *command[3:]]
    sys.stdin = open(0, encoding="utf-8", closefd=False)  # noqa: SIM115
    sys.stdout = open(1, "w", encoding="utf-8", closefd=False)  # noqa: SIM115
    sys.stderr = open(2, "w", encoding="utf-8", errors="backslashreplace", closefd=False)  # noqa: SIM115
    _end(_status_of_main())


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
