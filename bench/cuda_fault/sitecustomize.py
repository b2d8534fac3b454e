"""Put on a server's PYTHONPATH by `bench.cuda_device`: provokes a real sticky CUDA error inside a device worker.

Python imports this file at the start of every process. In a device worker it waits on a thread for the file that
DEVICEOPS_BENCH_FAULT names, and then indexes out of range on the device: the kernel's assert fails, and CUDA refuses every
call of that process from then on.
"""

import os
import sys
import threading
import time

_forks = 0


def _wait_and_break(path: str) -> None:
    while not os.path.exists(path) or not _in_worker():
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


def _words() -> list[bytes]:
    with open("/proc/self/cmdline", "rb") as command:
        return command.read().split(b"\0")


def _in_worker() -> bool:
    with open("/proc/self/comm") as name:
        if name.read().startswith("worker cuda"):
            return True
    words = _words()
    return b"server.worker.process" in words and any(word.startswith(b"cuda") for word in words)


def _watch() -> None:
    threading.Thread(target=_wait_and_break, args=(os.environ["DEVICEOPS_BENCH_FAULT"],), daemon=True).start()


def _forked() -> None:
    global _forks
    _forks += 1
    # The nursery forks twice for each worker.
    if _forks == 2:
        _watch()


if os.environ.get("DEVICEOPS_BENCH_FAULT") and sys.platform == "linux":
    if b"server.worker.nursery" in _words():
        os.register_at_fork(after_in_child=_forked)
    elif _in_worker():
        _watch()
