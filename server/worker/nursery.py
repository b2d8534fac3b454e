"""The process that workers are forked from: `python -m server.worker.nursery`, its stdin a Unix socket to the server.

It has imported torch and diffusers, has touched no device and has no thread that a fork would miss, so that a fork of it
is a worker that has just started, seconds earlier. The server stays the parent of each worker: the nursery forks twice, the
process between ends at once, and the kernel gives the orphan to the server, see `lifetime.adopting`. So the nursery's death
costs no worker, and the server's death ends them all.
"""

import os
import socket
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from server import log
from server.lifetime import end_with_parent
from server.worker.command import WorkerStart
from server.worker.fork_order import PACKET_BYTES, READY, Forked, ForkOrder, decode_order, encode
from server.worker.process import BEHIND_THE_FRONT, serve

_LIBRARIES = ("domains.processing.on_device.orders", "server.worker.frame_orders")
"""With all that they import: torch, diffusers, transformers."""


def main() -> None:
    """Fork a worker for each order until the server is gone; each worker goes on from here."""
    assert sys.platform != "win32", "there is no nursery: see `adopted.can_adopt`"
    server = os.getppid()
    control = socket.socket(fileno=os.dup(0))
    end_with_parent()
    log.configure_inherited()
    import_behind_the_front()
    control.send(READY)
    order = _next_worker(control, server)
    if order is not None:
        control.close()
        _begin(order)


def import_behind_the_front() -> None:
    """Import what workers import without delaying the front's first answer, and leave no thread.

    On Linux niceness is a thread's, and none can take its own back: so a thread has it and ends, and a GPU's worker is
    forked without.
    """
    with ThreadPoolExecutor(1) as beside:
        thread = beside.submit(_import_nicely).result()
    # Python is done with a thread before the system is, and MKL holds a lock while it cleans up after one. In a process
    # that is forked in that moment nobody ever opens the lock: its first matrix product hangs.
    while Path(f"/proc/self/task/{thread}").exists():
        time.sleep(0.001)


def _import_nicely() -> int:
    """In a thread; its id."""
    assert sys.platform != "win32", "there is no nursery: see `adopted.can_adopt`"
    os.nice(BEHIND_THE_FRONT)
    from domains.device.on_device.forking import import_libraries

    import_libraries(*_LIBRARIES)
    return threading.get_native_id()


def _next_worker(control: socket.socket, server: int) -> ForkOrder | None:
    """Returns in each worker, with its order; in the nursery only at the end, with None."""
    assert sys.platform != "win32", "there is no nursery: see `adopted.can_adopt`"
    while True:
        packet, fds, _, _ = socket.recv_fds(control, PACKET_BYTES, 2, socket.MSG_CMSG_CLOEXEC)
        if not packet:
            return None
        order = decode_order(packet)
        pid = _fork_for(server, fds)
        if pid is None:
            return order
        for fd in fds:
            os.close(fd)
        control.send(encode(Forked(pid=pid)))


def _fork_for(server: int, fds: list[int]) -> int | None:
    """A worker's process id, 0 where there is none; None: this is the worker."""
    assert sys.platform != "win32", "there is no nursery: see `adopted.can_adopt`"
    told, tell = os.pipe()
    try:
        between = os.fork()
    except OSError:
        between = -1
    if between == 0:
        between = os.getpid()
        _fork_and_end(tell)
        _settle(server, between, fds)
        os.close(told)
        os.close(tell)
        return None
    os.close(tell)
    pid = int(os.read(told, PACKET_BYTES) or b"0")
    os.close(told)
    if between > 0:
        # From then on the worker is the server's child.
        os.waitpid(between, 0)
    return pid


def _fork_and_end(tell: int) -> None:
    """In the process between: returns in the worker alone."""
    assert sys.platform != "win32", "there is no nursery: see `adopted.can_adopt`"
    try:
        worker = os.fork()
        if worker:
            os.write(tell, str(worker).encode())
            os._exit(0)
    except OSError:
        os._exit(1)


def _settle(server: int, between: int, fds: list[int]) -> None:
    """In the worker: its pipe as stdin and stdout, and the server as its parent."""
    for fd, place in zip(fds, (0, 1), strict=True):
        os.dup2(fd, place)
        os.close(fd)
    while os.getppid() == between:
        time.sleep(0.0005)
    end_with_parent()
    if os.getppid() != server:
        # The server died meanwhile, or the system does not hand orphans over.
        os._exit(1)


def _begin(order: ForkOrder) -> None:
    """The life of the worker."""
    from domains.device.on_device.forking import fresh_randomness, spoiled

    if spoiled():
        # A library initialised CUDA while it was imported. A new process of the same id can use it, seconds later.
        os.execv(sys.executable, WorkerStart(name=order.name, uuid=order.uuid).command())
    fresh_randomness()
    # What `top` and `ps -e` show: the command line is still the nursery's.
    Path("/proc/self/comm").write_text(f"worker {order.name}")
    serve(order.name, order.uuid)


if __name__ == "__main__":
    main()
