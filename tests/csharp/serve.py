"""`python -m tests.csharp.serve ARGUMENTS`: `python -m server ARGUMENTS`, started by `server_source`.

The server has this process's stdin, stdout and stderr. It ends with this process, and this process with it.
"""

import json
import os
import signal
import socket
import sys

SOURCE = "DEVICEOPS_SERVER_SOURCE"
"""Path of the socket on which the source takes orders."""


def main() -> int:
    environment = dict(os.environ)
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as door:
        door.connect(environment.pop(SOURCE))
        command = [sys.executable, "-m", "server", *sys.argv[1:]]
        order = json.dumps({"command": command, "environment": environment, "folder": os.getcwd()})
        socket.send_fds(door, [order.encode()], [0, 1, 2])
        _let_go_of_streams()
        pid = int(door.recv(64))
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda sent, _: os.kill(pid, sent))
        status = int(door.recv(64) or b"1")
    return status if status >= 0 else 128 - status


def _let_go_of_streams() -> None:
    """Close them here: the end of a pipe is then that of the server's end."""
    nothing = os.open(os.devnull, os.O_RDWR)
    for fd in (0, 1, 2):
        os.dup2(nothing, fd)


if __name__ == "__main__":
    sys.exit(main())
