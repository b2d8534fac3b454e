"""A nursery whose workers tell what they found at their beginning, and serve no device.

`light`: it imports nothing, so that it is there at once, and its workers tell less.
`spoiled`: the same, and its forks find that CUDA was initialised; they are real workers.
"""

import json
import os
import sys
from typing import Any

from domains.device.on_device import forking
from server.worker import nursery


def tell(name: str, uuid: str) -> None:
    """One line, then wait for the end of stdin; the exit status is the length of the device's name."""
    found: dict[str, Any] = {"name": name, "uuid": uuid, "parent": os.getppid(), "nursery": os.environ["NURSERY"]}
    if "diffusers" in sys.modules:
        found |= _libraries()
    print(json.dumps(found), flush=True)
    sys.stdin.read()
    sys.exit(len(name))


def _libraries() -> dict[str, Any]:
    import numpy
    import torch

    return {
        "tasks": len(os.listdir("/proc/self/task")),
        "niceness": os.getpriority(os.PRIO_PROCESS, 0),
        "cuda": torch.cuda.is_initialized(),
        "spoiled": forking.spoiled(),
        "random": [forking.random.random(), float(numpy.random.rand()), float(torch.rand(())), torch.initial_seed()],
    }


if __name__ == "__main__":
    os.environ["NURSERY"] = str(os.getpid())
    mode = sys.argv[1] if len(sys.argv) > 1 else ""
    if mode:
        forking.import_libraries = lambda *modules: None
        forking.spoiled = lambda: mode.replace("light", "")
        forking.fresh_randomness = lambda: None
    if mode != "spoiled":
        nursery.serve = tell
    nursery.main()
