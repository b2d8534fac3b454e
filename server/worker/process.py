"""The worker process: `python -m server.worker.process DEVICE [UUID]`. With a UUID it sees only that GPU.

It takes the pipe first, so that no print can write into the frames, and pings are answered while torch is imported.
"""

import gc
import os
import sys
from pathlib import Path

from domains.threads import bounded_starts
from server import log
from server.lifetime import end_with_parent
from server.stdio.peer import FramePeer
from server.stdio.pipe import protect_stdout

BEHIND_THE_FRONT = 5
"""Niceness of a worker that computes on the CPU, so that the front answers in milliseconds while every core is busy."""


def main() -> None:
    """Serve the device that the command line names."""
    serve(sys.argv[1], sys.argv[2] if len(sys.argv) > 2 else "")


def serve(name: str, uuid: str) -> None:
    """Serve one device over stdin and stdout until the pipe ends. `uuid`: UUID of the only GPU to see; empty: all."""
    with bounded_starts():
        _serve(name, uuid)


def _serve(name: str, uuid: str) -> None:
    in_fd, out_fd = protect_stdout()
    end_with_parent()
    log.configure_inherited()
    if not name.startswith(("cuda", "rocm")) and sys.platform != "win32":
        # A fork may have inherited the niceness already.
        if os.getpriority(os.PRIO_PROCESS, 0) < BEHIND_THE_FRONT:
            os.nice(BEHIND_THE_FRONT)
    peer = FramePeer(in_fd, out_fd)
    if uuid:
        # CUDA reads the variable when it is initialised, in `OrderLoop`.
        os.environ["CUDA_VISIBLE_DEVICES"] = uuid
    # Imported late: without a nursery, torch takes seconds.
    from domains.device.on_device.launch_queue import lengthen_launch_queue
    from domains.processing.on_device.orders import OrderLoop
    from domains.processing.on_device.refusal import begun
    from server.worker.frame_orders import FrameOrders

    # Frozen: otherwise the collection at each unload walks all imported objects, and jobs on the device wait 0.3 s.
    gc.collect()
    gc.freeze()
    lengthen_launch_queue()
    channel = FrameOrders(peer)
    loop = begun(channel, lambda: OrderLoop(channel, name, lambda model: Path(model.folder), pinned=bool(uuid)))
    if loop is not None:
        loop.run()


if __name__ == "__main__":
    main()
