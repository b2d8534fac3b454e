"""`python -m tests.server.nursery_source_process`: starts servers that are forks of this process, as their nurseries are,
and other modules that need the same imports.

Its stdin is a Unix socket. It has imported what both import, once for all.
"""

import os
import select
import socket
import sys

import msgspec

from server.worker.fork_order import READY
from tests.server.forked_server import become_module, become_server, import_everything
from tests.server.start_order import PACKET_BYTES, Start


def main() -> None:
    control = socket.socket(fileno=os.dup(0))
    with open(os.devnull, "rb") as nothing:
        os.dup2(nothing.fileno(), 0)
    # Not behind the others at low priority: the first test waits for it.
    import_everything()
    control.send(READY)
    decode = msgspec.msgpack.Decoder(Start).decode
    while True:
        packet, fds, _, _ = socket.recv_fds(control, PACKET_BYTES, 3, socket.MSG_CMSG_CLOEXEC)
        if not packet:
            return
        pid = _forked()
        if pid is None:
            control.close()
            start = decode(packet)
            hold = fds.pop() if start.held else None
            streams = {0: fds.pop()} if start.stdin else {}
            streams |= dict(enumerate(fds, start=1))
            if not start.serves:
                become_module(start.command, start.environment, streams)
            become_server(start.command, start.environment, streams, hold=hold, execs=start.execs)
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


if __name__ == "__main__":
    sys.exit(main())
