"""Reads a pickle of tensors and writes them as safetensors: the throw-away process of `domains.model.convert_pickle`.

Run as a script in isolated mode with an empty environment, so it imports nothing of this project. It answers with one line
of JSON: `{"tensors": …, "left_out": …}` or `{"error": "old" | "unsafe" | "damaged" | "empty" | "disk", "message": …}`.
"""

# pyright: basic

import json
import os
import pickle
import sys
from typing import Any

_GIB = 1024**3
_BYTES_PER_CPU_S = 20_000_000
_FORBIDDEN = (
    "socket.",
    "subprocess.",
    "os.system",
    "os.exec",
    "os.fork",
    "os.posix_spawn",
    "os.spawn",
    "ctypes.dlopen",
)
"""Events of the interpreter that reading tensors never raises; `weights_only` already runs no code of the file."""
_SAFE_TORCH = (2, 6)
"""Before it, `weights_only` runs code of a damaged file: CVE-2025-32434."""
_NESTED = ("state_dict", "params_ema", "params", "model")
"""Keys under which training programs store the tensors."""


def _limit(size: int) -> None:
    """Bound memory, CPU time and the size of files that this process can write."""
    if sys.platform == "win32":
        return
    import resource

    for kind, most in (
        (resource.RLIMIT_AS, 16 * _GIB + 3 * size),
        (resource.RLIMIT_CPU, 120 + size // _BYTES_PER_CPU_S),
        (resource.RLIMIT_FSIZE, 2 * size + 64 * 1024**2),
        # 1 byte: for 0, Linux still sends the dump to a program that `core_pattern` names (core(5)).
        (resource.RLIMIT_CORE, 1),
    ):
        hard = resource.getrlimit(kind)[1]
        resource.setrlimit(kind, (most, most) if hard == resource.RLIM_INFINITY else (min(most, hard), hard))


def _no_network() -> None:
    """Leave the machine's network namespace, where the system lets an unprivileged process do so."""
    if sys.platform == "linux":
        import ctypes

        new_user, new_network = 0x10000000, 0x40000000
        ctypes.CDLL(None).unshare(new_user | new_network)


def _refuse(event: str, arguments: object) -> None:
    if event.startswith(_FORBIDDEN):
        raise PermissionError(f"{event} is not allowed while a pickle is read")


def _tensors(read: object) -> "tuple[dict[str, Any], int]":
    """The tensors of what was read, and how many other entries it has."""
    import torch

    for key in _NESTED:
        if isinstance(read, dict) and isinstance(read.get(key), dict):
            read = read[key]
            break
    entries = read.items() if isinstance(read, dict) else ()
    seen: set[int] = set()
    found: dict[str, Any] = {}
    for name, value in entries:
        if isinstance(name, str) and isinstance(value, torch.Tensor):
            place = value.untyped_storage().data_ptr()
            # Safetensors has no tensors that share memory.
            found[name] = value.detach().clone() if place in seen else value.detach().contiguous()
            seen.add(place)
    return found, len(entries) - len(found)


def _load(path: str) -> object:
    import torch

    try:
        return torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except RuntimeError:
        # Files of before torch 1.6 are no archives, and cannot be mapped.
        return torch.load(path, map_location="cpu", weights_only=True)


def _convert(source: str, destination: str) -> "dict[str, object]":
    _limit(os.path.getsize(source))
    _no_network()
    import torch
    from safetensors.torch import save_file

    if tuple(map(int, torch.__version__.split(".")[:2])) < _SAFE_TORCH:
        return {"error": "old", "message": f"torch {torch.__version__}"}
    sys.addaudithook(_refuse)
    try:
        read = _load(source)
    except pickle.UnpicklingError as error:
        unsafe = "nsupported" in str(error) or "global" in str(error).lower()
        return {"error": "unsafe" if unsafe else "damaged", "message": str(error)[:400]}
    except Exception as error:
        return {"error": "damaged", "message": f"{type(error).__name__}: {error}"[:400]}
    tensors, left_out = _tensors(read)
    if not tensors:
        return {"error": "empty", "message": "it holds no tensors with names"}
    try:
        save_file(tensors, destination)
    except Exception as error:
        return {"error": "disk", "message": f"{error}"[:400]}
    return {"tensors": len(tensors), "left_out": left_out}


if __name__ == "__main__":
    print(json.dumps(_convert(sys.argv[1], sys.argv[2])), flush=True)
