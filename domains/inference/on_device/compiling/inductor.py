"""Torch's compiler: its settings, and where it keeps its files.

Compilers write sources and libraries and load them again. All of them lie in a folder of this process alone, which is
removed at its end: nothing that an earlier process wrote is ever executed. Torch's own caches of whole graphs, which
unpickle files, are off; so are processes beside this one, to which torch would talk in pickles.
"""

import atexit
import os
import shutil
import tempfile
from collections.abc import Callable, Sequence
from functools import cache
from importlib import import_module
from pathlib import Path
from types import FunctionType
from typing import Any

import torch
from torch import Tensor

from domains.inference.code_folder import CODE_FOLDER
from domains.inference.on_device.networks.block_code import Compute

_FILES = {
    "TORCHINDUCTOR_CACHE_DIR": "inductor",
    "TRITON_HOME": "triton",
    "TRITON_CACHE_DIR": "triton/cache",
    # Compilers of C and C++ write what lies between their passes here.
    "TMPDIR": "temporary",
}


class Made:
    """Whether a function's code has been made: what is raised later is no fault of the compiler."""

    def __init__(self) -> None:
        self.done = False


def compiled(function: Compute, made: Made) -> Compute:
    """The function with code that is made at its first call, which may take a minute; see `making.first_call`.

    Raises torch's errors for what cannot be compiled as a whole; never computes it otherwise.
    """

    def backend(graph: Any, inputs: Sequence[Any]) -> Callable[..., Any]:
        code = BACKENDS[-1](graph, inputs)
        made.done = True
        return code

    return torch.compile(_own(function), fullgraph=True, dynamic=False, backend=backend)


def rows_vary(tensor: Tensor) -> None:
    """Have code that is made of this tensor take any number of rows but one."""
    import_module("torch._dynamo").maybe_mark_dynamic(tensor, 0)


def settle() -> None:
    """Take the compiler's settings for the thread that calls this: torch keeps them for each thread."""
    _use_own_folder()
    for module, values in _SETTINGS.items():
        for name, value in values.items():
            setattr(import_module(module), name, value)


_SETTINGS: dict[str, dict[str, Any]] = {
    "torch._inductor.config": {
        "compile_threads": 1,
        "fx_graph_cache": False,
        "fx_graph_remote_cache": False,
        "autotune_local_cache": False,
        "autotune_remote_cache": False,
        "bundled_autotune_remote_cache": False,
    },
    "torch._functorch.config": {"enable_autograd_cache": False, "enable_remote_autograd_cache": False},
    "torch._dynamo.config": {"automatic_dynamic_local_pgo": False, "automatic_dynamic_remote_pgo": False},
}
"""Not `force_disable_caches`: with it each code has a folder of its own, and its C++ headers are compiled again, for half of
the time."""


def _inductor(graph: Any, inputs: Sequence[Any]) -> Callable[..., Any]:
    return import_module("torch._inductor.compile_fx").compile_fx(graph, inputs)


BACKENDS: list[Callable[[Any, Sequence[Any]], Callable[..., Any]]] = [_inductor]
"""The last one compiles. Tests of what is around the compiler put a quick one behind it."""


@cache
def _use_own_folder() -> None:
    """Have the compilers of this process write into a folder of its own."""
    beside = os.environ.get(CODE_FOLDER)
    if beside:
        Path(beside).mkdir(parents=True, exist_ok=True, mode=0o700)
    folder = Path(tempfile.mkdtemp(prefix="code-", dir=beside))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    for name, part in _FILES.items():
        (folder / part).mkdir(parents=True)
        os.environ[name] = str(folder / part)
    # Python has asked for the variable before.
    tempfile.tempdir = os.environ["TMPDIR"]


def _own(function: Any) -> Any:
    """The function with a code object of its own. Torch keeps what it compiles by code object, at most eight for each."""
    parts = function.__code__.replace(), function.__globals__, function.__name__, function.__defaults__
    return FunctionType(*parts, function.__closure__)
