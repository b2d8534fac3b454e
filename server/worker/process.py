"""The worker process: `python -m server.worker.process DEVICE [UUID]`. With a UUID it sees that GPU alone.

The pipe comes first: from then on nothing that prints can disturb it, and pings are answered while torch is imported.
"""

import os
import sys
from pathlib import Path

from server import log
from server.lifetime import end_with_parent
from server.stdio.peer import FramePeer
from server.stdio.pipe import protect_stdout

BEHIND_THE_FRONT = 5
"""Niceness of a worker that computes on the CPU: the front answers in milliseconds although every core is busy."""


def main() -> None:
    """Serve the device that the command line names."""
    serve(sys.argv[1], sys.argv[2] if len(sys.argv) > 2 else "")


def serve(name: str, uuid: str) -> None:
    """Serve one device over stdin and stdout until the pipe ends. `uuid`: of the only GPU to see; empty: all."""
    in_fd, out_fd = protect_stdout()
    end_with_parent()
    log.configure_inherited()
    if not name.startswith(("cuda", "rocm")) and sys.platform != "win32":
        # A fork of the nursery stands there already.
        if os.getpriority(os.PRIO_PROCESS, 0) < BEHIND_THE_FRONT:
            os.nice(BEHIND_THE_FRONT)
    peer = FramePeer(in_fd, out_fd)
    if uuid:
        # CUDA reads it when it is initialised, which is not before `OrderLoop`.
        os.environ["CUDA_VISIBLE_DEVICES"] = uuid
    # torch takes seconds where no nursery has imported it: only now.
    from domains.errors import DeviceOpsError
    from domains.processing.on_device.orders import OrderLoop
    from domains.processing.on_device.refusal import refuse
    from server.worker.frame_orders import FrameOrders

    channel = FrameOrders(peer)
    try:
        loop = OrderLoop(channel, name, lambda model: Path(model.folder), pinned=bool(uuid))
    except DeviceOpsError as error:
        refuse(channel, error)
    else:
        loop.run()


if __name__ == "__main__":
    main()
