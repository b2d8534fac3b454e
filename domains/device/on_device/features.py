"""Features of a device besides arithmetic, each found by one trial. All together take well under a second."""

import importlib.util
import shutil
import subprocess
import sysconfig
import tempfile
from functools import reduce
from math import gcd
from pathlib import Path

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.functional import scaled_dot_product_attention

_BUILD_S = 20.0
_ATTENTION = {
    "flash_attention": SDPBackend.FLASH_ATTENTION,
    "memory_efficient_attention": SDPBackend.EFFICIENT_ATTENTION,
    "cudnn_attention": SDPBackend.CUDNN_ATTENTION,
}


def features(device: torch.device) -> tuple[str, ...]:
    """Names for `DeviceCapabilities.features`, but for `compile`, which needs another process: see `can_compile`."""
    kernels = tuple(name for name, kernel in _ATTENTION.items() if _attends(device, kernel))
    return (*(("pinned_memory",) if _pinned_memory(device) else ()), *kernels)


def _pinned_memory(device: torch.device) -> bool:
    """Whether the device copies from page-locked host memory."""
    if device.type != "cuda":
        return False
    try:
        return torch.ones(1024).pin_memory().to(device, non_blocking=True).sum().item() == 1024
    except RuntimeError:
        return False


def _attends(device: torch.device, kernel: SDPBackend) -> bool:
    """Whether one of torch's attention kernels runs here and computes the same as plain attention on the CPU."""
    dtype = torch.float16 if device.type == "cuda" else torch.float32
    generator = torch.Generator().manual_seed(1)
    query, key, value = (torch.rand(1, 2, 128, 64, generator=generator) for _ in range(3))
    try:
        with sdpa_kernel(kernel):
            there = [tensor.to(device, dtype) for tensor in (query, key, value)]
            found = scaled_dot_product_attention(there[0], there[1], there[2]).float().cpu()
    except RuntimeError:
        return False
    with sdpa_kernel(SDPBackend.MATH):
        plain = scaled_dot_product_attention(query, key, value)
    return torch.allclose(found, plain, atol=0.01)


def can_compile(device: torch.device) -> bool:
    """Whether the compiler that torch.compile needs works. Builds a small extension: torch.compile takes seconds."""
    if device.type not in ("cpu", "cuda") or (device.type == "cuda" and importlib.util.find_spec("triton") is None):
        return False
    names = ("cc", "gcc", "clang") if device.type == "cuda" else ("g++", "clang++", "c++")
    compiler = next(filter(None, map(shutil.which, names)), None)
    return compiler is not None and _builds(compiler)


def _builds(compiler: str) -> bool:
    """Whether an empty Python extension compiles. Python's header files are missing most often; a temporary folder that
    cannot be written keeps torch.compile from working too."""
    try:
        with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
            source = Path(folder) / "empty.c"
            source.write_text("#include <Python.h>\nint empty(void) { return 0; }\n")
            command = [compiler, "-shared", "-fPIC", f"-I{sysconfig.get_path('include')}", str(source)]
            done = subprocess.run([*command, "-o", f"{source}.so"], capture_output=True, timeout=_BUILD_S, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return False
    return done.returncode == 0


def allocation_alignment(device: torch.device) -> int | None:
    """Granularity of allocations. GPU: the bytes that one byte takes. CPU: the common divisor of the addresses."""
    if device.type == "cuda":
        before = torch.cuda.memory_allocated(device)
        byte = torch.empty(1, dtype=torch.uint8, device=device)
        taken = torch.cuda.memory_allocated(device) - before
        del byte
        return taken or None
    if device.type != "cpu":
        return None
    pieces = [torch.empty(size, dtype=torch.uint8) for size in range(1, 256, 4)]
    return reduce(gcd, (piece.data_ptr() for piece in pieces)) or None
