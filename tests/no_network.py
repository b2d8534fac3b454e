"""Runs a command where no connection leaves the machine: in a network namespace with loopback and without routes (Linux).

python -m tests.no_network python -m pytest -n 2 -m "not gpu"      the suite; or any other command
"""

import os
import shutil
import socket
import struct
import subprocess
import sys
from collections.abc import Sequence

# Root needs no namespace of users, in which files cannot be given to another user.
UNSHARE = (
    ("unshare", "--net") if hasattr(os, "geteuid") and not os.geteuid() else ("unshare", "--map-root-user", "--net")
)
_INSIDE = "--inside"
_SIOCSIFFLAGS = 0x8914
_IFF_UP_RUNNING = 0x1 | 0x40


def refusal() -> str:
    """The reason why this machine makes no namespace; empty: it does."""
    if sys.platform != "linux" or not shutil.which("unshare"):
        return "needs Linux with unshare"
    tried = subprocess.run([*UNSHARE, "true"], capture_output=True, text=True, check=False)
    return tried.stderr.strip()


def without_network(command: Sequence[str]) -> list[str]:
    """The command line that runs the command in such a namespace."""
    return [*UNSHARE, sys.executable, "-m", "tests.no_network", _INSIDE, *command]


def _raise_loopback() -> None:
    import fcntl  # Windows has none

    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as one:
        fcntl.ioctl(one, _SIOCSIFFLAGS, struct.pack("16sH14s", b"lo", _IFF_UP_RUNNING, b""))


def main(arguments: list[str]) -> None:
    """Become the command."""
    if arguments[0] == _INSIDE:
        _raise_loopback()
        os.execvp(arguments[1], arguments[1:])
    command = without_network(arguments)
    os.execvp(command[0], command)


if __name__ == "__main__":
    main(sys.argv[1:])
