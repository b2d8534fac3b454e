"""Matrix product, convolution and attention, in each precision that the device supports."""

from functools import partial

import torch

from domains.device.benchmark import Suite
from domains.device.on_device.benchmark.figure import Figure, Work, runs
from domains.device.on_device.free_memory import free_bytes
from domains.device.on_device.operations import PRECISIONS, Operation, attention, can, conv2d, matmul

_LARGE = (matmul(4096), conv2d(8, 320, 64), attention(2, 16, 4096, 64))
_LARGE_NEED_BYTES = 4 * 2**30
"""Memory of attention without a fused kernel: all weights, 32 x 4096 x 4096 float32, and their softmax."""
_SMALL = (matmul(512), conv2d(1, 64, 48), attention(1, 8, 384, 64))
_TINY = (matmul(64), conv2d(1, 8, 16), attention(1, 2, 64, 32))
"""Small operations that find out the supported precisions."""


def figures(device: torch.device) -> list[Figure]:
    """FLOP per second; a multiply-add counts as two."""
    large = device.type == "cuda" and free_bytes(device) > 2 * _LARGE_NEED_BYTES
    return [
        Figure(
            suite=Suite.COMPUTE,
            name=f"{operation.name}_{precision}",
            unit="{flop}/s",
            workload=f"{operation.workload} {precision}{_tf32(device, operation, precision)}",
            take=runs(partial(_work, device, operation, dtype), amount=operation.flop),
        )
        for operation, tiny in zip(_LARGE if large else _SMALL, _TINY, strict=True)
        for precision, dtype in PRECISIONS.items()
        if can(device, tiny, precision)
    ]


def _tf32(device: torch.device, operation: Operation, precision: str) -> str:
    """Text for the workload if CUDA may compute float32 in TF32, which keeps 10 bits of a product."""
    if device.type != "cuda" or precision != "float32":
        return ""
    settings = torch.backends.cudnn if operation.name == "conv2d" else torch.backends.cuda.matmul
    try:
        return ", TF32 allowed" if settings.allow_tf32 else ""
    except RuntimeError:  # Newer versions of torch refuse this query once their newer setting was used.
        return ", TF32 perhaps allowed"


def _work(device: torch.device, operation: Operation, dtype: torch.dtype) -> Work:
    inputs = [one.to(device) for one in operation.inputs(dtype)]
    return lambda: operation.compute(*inputs)
