"""Which blocks of a denoiser compute with compiled code in the forward that runs now. Forwards run on one thread."""

from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from typing import Any

from torch import nn

Compute = Callable[..., Any]
"""Computes what a block computes."""


class _Now:
    def __init__(self) -> None:
        self.code: Mapping[nn.Module, Compute] = {}


_now = _Now()


def code_of(block: nn.Module) -> Compute | None:
    """The code of a block whose weights code of ours reads. None: the block computes as usual."""
    return _now.code.get(block)


@contextmanager
def with_code(read: Mapping[nn.Module, Compute], called: Mapping[nn.Module, Compute]) -> Generator[None]:
    """Compute forwards within the context with code: `read` is what `code_of` returns; `called` takes the place of the
    forwards of modules, inside their hooks."""
    before, _now.code = _now.code, read
    for module, compute in called.items():
        # As an attribute of the module would cost a microsecond each.
        module.__dict__["forward"] = compute
    try:
        yield
    finally:
        _now.code = before
        for module in called:
            del module.__dict__["forward"]
