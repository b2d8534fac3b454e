"""`python -m tests.server.nursery_source_process`: starts servers whose nursery is a fork of this process.

Its stdin is a Unix socket. It has imported what a nursery imports, once for all of the servers.
"""

import os
import select
import socket
import sys

import msgspec

from domains.device.on_device.forking import import_libraries
from server.worker import given_nursery, nursery
from server.worker.fork_order import READY

PACKET_BYTES = 128 * 1024


class Start(msgspec.Struct, frozen=True):
    """Start a server. The descriptors of its stdout and stderr come with the packet."""

    command: list[str]
    """Its command line."""
    environment: dict[str, str]
    """All of its variables."""


def main() -> None:
    control = socket.socket(fileno=os.dup(0))
    with open(os.devnull, "rb") as nothing:
        os.dup2(nothing.fileno(), 0)
    # Not behind the others at low priority: the first test waits for it.
    import_libraries(*nursery.LIBRARIES)
    control.send(READY)
    decode = msgspec.msgpack.Decoder(Start).decode
    while True:
        packet, fds, _, _ = socket.recv_fds(control, PACKET_BYTES, 2, socket.MSG_CMSG_CLOEXEC)
        if not packet:
            return
        pid = _forked()
        if pid is None:
            control.close()
            _become_server(decode(packet), fds)
            return
        for fd in fds:
            os.close(fd)
        control.send(str(pid).encode())


def _forked() -> int | None:
    """Fork twice. Returns the process id of a child of the process that adopts, or None in that child."""
    told, tell = os.pipe()
    between = os.fork()
    if between:
        os.close(tell)
        with os.fdopen(told) as pipe:
            pid = int(pipe.read())
        # When the process between has ended, the test process has adopted the other.
        os.waitpid(between, 0)
        return pid
    # Readable when this process has ended, and its child has been adopted.
    ended = os.pidfd_open(os.getpid())
    if child := os.fork():
        os.write(tell, str(child).encode())
        os._exit(0)
    os.close(told)
    os.close(tell)
    select.select([ended], [], [])
    os.close(ended)
    return None


def _become_server(start: Start, fds: list[int]) -> None:
    """Run the command in this process, with a child that is to be its nursery. Returns in the child, at its end."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    server = os.getpid()
    child = os.fork()
    if not child:
        ours.close()
        for fd in fds:
            os.close(fd)
        with open(os.devnull, "wb") as nothing:
            os.dup2(nothing.fileno(), 1)
        nursery.serve_given(theirs, server)
        return
    for fd, place in zip(fds, (1, 2), strict=True):
        os.dup2(fd, place)
    os.set_inheritable(ours.fileno(), True)
    os.execvpe(
        start.command[0],
        start.command,
        {**start.environment, given_nursery.VARIABLE: f"{child}:{ours.fileno()}"},
    )


if __name__ == "__main__":
    sys.exit(main())
