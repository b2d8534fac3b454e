"""Prepares torch for forks: if the parent has imported torch and has used no device, its fork is like a new process.

import_libraries()                     # in the process to fork from: everything that takes seconds, and no device touched
why = spoiled(); fresh_randomness()    # in the forked process, first of all
"""

import gc
import importlib
import random
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np


def import_libraries(*modules: str) -> None:
    """Import what a worker imports, so that all forks share its memory. Uses no device."""
    with _cuda_untouched():
        # The garbage collector takes a fifth of the import's time and frees none of the half a million objects.
        gc.disable()
        try:
            for module in modules:
                importlib.import_module(module)
        finally:
            gc.enable()
    gc.collect()
    # The collector writes into the header of each object that it looks at, which would copy every page into each fork.
    gc.freeze()


def spoiled() -> str:
    """Why this forked process cannot use CUDA; empty: it can."""
    import torch

    cuda: Any = torch.cuda
    return "CUDA was initialised before the fork" if cuda._is_in_bad_fork() else ""


def fresh_randomness() -> None:
    """Seed the default generators from the system's entropy: a fork begins with its parent's state."""
    import torch

    random.seed()
    np.random.seed()
    torch.seed()


@contextmanager
def _cuda_untouched() -> Generator[None]:
    """Answer "how many GPUs?" without asking CUDA or NVML: neither survives a fork.

    diffusers 0.36 and later ask while they are imported. The answer is whether the driver has made a device file.
    """
    import torch

    library: Any = torch
    asked: list[tuple[Any, str]] = [(library.cuda, "device_count")]
    if hasattr(library._C, "_cuda_getDeviceCount"):
        asked.append((library._C, "_cuda_getDeviceCount"))
    real: list[Callable[[], int]] = [getattr(owner, name) for owner, name in asked]
    for owner, name in asked:
        setattr(owner, name, _device_files)
    try:
        yield
    finally:
        for (owner, name), function in zip(asked, real, strict=True):
            setattr(owner, name, function)


def _device_files() -> int:
    devices = Path("/dev")
    return len([*devices.glob("nvidia[0-9]*"), *devices.glob("kfd")])
