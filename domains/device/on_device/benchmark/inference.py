"""One denoising step of a small network."""

import time
from functools import partial

import torch

from domains.device.benchmark import STEP, Suite
from domains.device.on_device.benchmark.denoiser import SIDE, WIDTH, denoiser
from domains.device.on_device.benchmark.figure import Figure, Work, runs
from domains.device.on_device.free_memory import wait_for
from domains.device.on_device.operations import PRECISIONS
from domains.device.on_device.torch_errors import lacking

_SLOWER_THAN = 4
"""A precision without hardware support on a CPU: not used in practice, and one step would take most of the benchmark."""
_TRIAL_SIDE = 16
_TRIALS = 3


def figures(device: torch.device) -> list[Figure]:
    """Seconds per step. The same workload on every device, for comparison."""
    tried = {precision: _trial_s(device, precision) for precision in PRECISIONS}
    longest = (tried["float32"] or 0.0) * _SLOWER_THAN
    return [
        Figure(
            suite=Suite.INFERENCE,
            name=f"{STEP}_{precision}",
            unit="s",
            workload=f"1x4x{SIDE}x{SIDE}, {WIDTH} channels wide, {precision}",
            take=runs(partial(_step, device, PRECISIONS[precision])),
            missing="" if trial <= longest else f"more than {_SLOWER_THAN} times slower than float32 in a trial",
        )
        for precision, trial in tried.items()
        if trial is not None
    ]


def _trial_s(device: torch.device, precision: str) -> float | None:
    """Seconds of a step on few pixels; None: the device lacks this precision."""
    try:
        step = _step(device, PRECISIONS[precision], side=_TRIAL_SIDE)
        step()
    except (RuntimeError, NotImplementedError) as error:
        if precision == "float32" or not lacking(error):
            raise
        return None
    return min(_once_s(device, step) for _ in range(_TRIALS))


def _once_s(device: torch.device, work: Work) -> float:
    wait_for(device)
    begin = time.perf_counter()
    work()
    wait_for(device)
    return time.perf_counter() - begin


def _step(device: torch.device, dtype: torch.dtype, side: int = SIDE) -> Work:
    network, latents, time_features = denoiser(device, dtype, side)
    return lambda: network(latents, time_features)
