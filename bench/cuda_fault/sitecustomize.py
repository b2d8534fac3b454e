"""Put on a server's PYTHONPATH by `bench.cuda_device`: provokes a real sticky CUDA error inside a device worker.

Python imports this file at the start of every process. In a device worker it waits on a thread for the file that
DEVICEOPS_BENCH_FAULT names, and then indexes out of range on the device: the kernel's assert fails, and CUDA refuses every
call of that process from then on.
"""

import os
import sys
import threading
import time


def _wait_and_break(path: str) -> None:
    while not os.path.exists(path):
        time.sleep(0.05)
    try:
        os.unlink(path)
    except FileNotFoundError:
        return
    import torch

    values = torch.zeros(4, device="cuda")
    where = torch.tensor([1_000_000], device="cuda")
    try:
        torch.cuda.synchronize((values[where] + 1).device)
    except RuntimeError as error:
        print(f"bench: provoked {str(error).splitlines()[0]}", file=sys.stderr, flush=True)


def _in_worker() -> bool:
    with open("/proc/self/cmdline", "rb") as command:
        words = command.read().split(b"\0")
    return b"server.worker.process" in words and any(word.startswith(b"cuda") for word in words)


if (fault := os.environ.get("DEVICEOPS_BENCH_FAULT")) and sys.platform == "linux" and _in_worker():
    threading.Thread(target=_wait_and_break, args=(fault,), daemon=True).start()
