"""The process that workers are forked from: `python -m server.worker.nursery`, its stdin a Unix socket to the server.

The nursery has imported torch and diffusers, has initialised no device and has no second thread, so a fork of it saves a
worker the seconds of importing. The server is the parent of each worker: the nursery forks twice, the process between ends
at once, and the kernel gives the orphan to the server, see `lifetime.adopting`. So the nursery's death ends no worker, and
the server's death ends all of them.
"""

import os
import socket
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

from server import log
from server.lifetime import end_with_parent
from server.worker.command import WorkerStart
from server.worker.fork_order import (
    PACKET_BYTES,
    READY,
    TAKE_OVER_BYTES,
    Forked,
    ForkOrder,
    decode_order,
    decode_take_over,
    encode,
)
from server.worker.process import BEHIND_THE_FRONT, serve

LIBRARIES = ("domains.processing.on_device.orders", "server.worker.frame_orders")
"""Modules to import in advance; they import torch, diffusers and transformers."""
_STREAMS = 2
"""Descriptors that come with an order: the worker's stdin and stdout."""


def main() -> None:
    """Fork a worker for each order until the server has ended. The forked workers continue in this function."""
    assert sys.platform != "win32", "there is no nursery: see `adopted.can_adopt`"
    server = os.getppid()
    # The server may have died while this process started.
    end_with_parent(link=0)
    control = socket.socket(fileno=os.dup(0))
    log.configure_inherited()
    import_behind_the_front()
    _serve(control, server)


def serve_given(control: socket.socket, server: int) -> None:
    """As `main`, in a process that was forked with everything imported, see `given_nursery`. `server`: its parent, which
    sends over `control` the environment and stderr that a started nursery would get."""
    assert sys.platform != "win32", "there is no nursery: see `adopted.can_adopt`"
    end_with_parent(link=control.fileno())
    if os.getppid() != server:
        os._exit(1)
    packet, fds, _, _ = socket.recv_fds(control, TAKE_OVER_BYTES, 1)
    if packet:
        os.dup2(fds[0], 2)
        os.close(fds[0])
        os.environ.clear()
        os.environ.update(decode_take_over(packet).environment)
        log.configure_inherited()
        _serve(control, server)


def _serve(control: socket.socket, server: int) -> None:
    control.send(READY)
    order = _next_worker(control, server)
    if order is not None:
        control.close()
        _begin(order)


def import_behind_the_front() -> None:
    """Import what workers import, at low priority so as not to delay the front's first answer, and leave no thread.

    Linux keeps niceness per thread, and a thread cannot lower its own again. So a temporary thread does the import. GPU
    workers are forked from the main thread and keep its niceness of 0.
    """
    with ThreadPoolExecutor(1) as beside:
        thread = beside.submit(_import_nicely).result()
    # `join` returns before the system has ended the thread, and MKL holds a lock while it cleans up after a thread. A fork
    # in that moment copies the locked lock: the first matrix product of the worker would hang.
    while Path(f"/proc/self/task/{thread}").exists():
        time.sleep(0.001)


def _import_nicely() -> int:
    """Import in this thread at a niceness of its own; returns the thread's id."""
    assert sys.platform != "win32", "there is no nursery: see `adopted.can_adopt`"
    os.nice(BEHIND_THE_FRONT)
    from domains.device.on_device.forking import import_libraries

    import_libraries(*LIBRARIES)
    return threading.get_native_id()


def _next_worker(control: socket.socket, server: int) -> ForkOrder | None:
    """Fork a worker for each order. Returns in each worker, with its order, and in the nursery at the end, with None."""
    assert sys.platform != "win32", "there is no nursery: see `adopted.can_adopt`"
    while True:
        packet, fds, _, _ = socket.recv_fds(control, PACKET_BYTES, _STREAMS, socket.MSG_CMSG_CLOEXEC)
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
    """Fork one worker. Returns its process id, 0 if the system refused it, or None in the worker itself."""
    assert sys.platform != "win32", "there is no nursery: see `adopted.can_adopt`"
    if len(fds) != _STREAMS:
        return 0  # no descriptor was left to receive them
    try:
        told, tell = os.pipe()
    except OSError:
        return 0
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
        # When the process between has ended, the worker is the server's child.
        os.waitpid(between, 0)
    return pid


def _fork_and_end(tell: int) -> None:
    """Called in the process between: fork the worker, write its process id to `tell`, and exit. The worker returns."""
    assert sys.platform != "win32", "there is no nursery: see `adopted.can_adopt`"
    try:
        worker = os.fork()
        if worker:
            os.write(tell, str(worker).encode())
            os._exit(0)
    except OSError:
        os._exit(1)


def _settle(server: int, between: int, fds: list[int]) -> None:
    """Called in the worker: make the pipe its stdin and stdout, and exit unless the server becomes its parent."""
    for fd, place in zip(fds, (0, 1), strict=True):
        os.dup2(fd, place)
        os.close(fd)
    while os.getppid() == between:
        time.sleep(0.0005)
    end_with_parent()
    if os.getppid() != server:
        # The server has died, or the system does not support the adoption of orphans.
        os._exit(1)


def _begin(order: ForkOrder) -> None:
    """Run the worker to its end."""
    from domains.device.on_device.forking import fresh_randomness, spoiled

    if spoiled():
        # A library initialised CUDA during the import, and a fork cannot use it. `exec` keeps the process id.
        os.execv(sys.executable, WorkerStart(name=order.name, uuid=order.uuid).command())
    fresh_randomness()
    # The name in `top` and `ps -e`; the command line is still the nursery's.
    with suppress(OSError):
        Path("/proc/self/comm").write_text(f"worker {order.name}")
    serve(order.name, order.uuid)


if __name__ == "__main__":
    main()
