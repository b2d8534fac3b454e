"""Makes code in a thread beside the one that ticks, which meanwhile shows life and looks for requests to stop.

One code is made at a time. The thread cannot be stopped: who is to stop leaves it behind, and its code is dropped. Until it
has ended no other code is made or used, as torch's compiler changes what holds for the whole process.
"""

import threading
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any

import torch

from domains.inference.on_device.compiling.inductor import settle
from domains.inference.on_device.families.family import CodeMissing, KeepOn, regardless
from domains.inference.on_device.networks.block_code import Compute

_LOOK_S = 0.05
"""Time between two calls of `keep_on`."""


class _Now:
    """What holds for the forward that runs now."""

    def __init__(self) -> None:
        self.keep_on: KeepOn | None = None
        """Called while code is made. None: it must not be made."""
        self.left: _Call | None = None
        """A thread that was left behind."""


_now = _Now()


@contextmanager
def code_permitted(keep_on: KeepOn) -> Generator[None]:
    """Let forwards within the context wait for code, which others do not: they raise `CodeMissing`. `keep_on` is called many
    times a second; the forward raises what it raises."""
    before, _now.keep_on = _now.keep_on, keep_on
    try:
        yield
    finally:
        _now.keep_on = before


def begin_code() -> None:
    """Prepare this thread to have code made. Raises CodeMissing where that is not permitted."""
    if _now.keep_on is None:
        raise CodeMissing
    await_others()
    # Torch makes code in this thread, too, if what it has assumed of inputs no longer holds.
    settle()


def await_others() -> None:
    """Wait for the thread that was left behind, if there is one. Raises CodeMissing where that is not permitted."""
    left = _now.left
    if left is not None and left.is_alive():
        if _now.keep_on is None:
            raise CodeMissing
        left.watched(_now.keep_on)
    _now.left = None


def first_call(function: Compute, arguments: Sequence[Any]) -> Any:
    """The result of a function's first call, which makes its code. Only after `begin_code`. Raises what the function or
    `keep_on` raises."""
    call = _Call(function, arguments)
    call.start()
    _now.left = call
    call.watched(_now.keep_on or regardless)
    _now.left = None
    return call.result()


class _Call(threading.Thread):
    """Calls a function in the state of torch that the thread which makes this has."""

    def __init__(self, function: Compute, arguments: Sequence[Any]) -> None:
        # A worker that ends does not wait for it.
        super().__init__(name="compile", daemon=True)
        self._function = function
        self._arguments = arguments
        self._enter = _state_of_torch()
        self._answer: Any = None
        self._error: BaseException | None = None

    def run(self) -> None:
        """Called by the thread."""
        try:
            settle()
            with self._enter():
                self._answer = self._function(*self._arguments)
        except BaseException as error:  # passed to who waits
            self._error = error
        finally:
            del self._function, self._arguments

    def watched(self, keep_on: KeepOn) -> None:
        """Wait for the end. Raises what `keep_on` raises."""
        while self.is_alive():
            keep_on()
            self.join(_LOOK_S)

    def result(self) -> Any:
        """The function's result. Raises what it has raised."""
        answer, error, self._answer, self._error = self._answer, self._error, None, None
        if error is not None:
            raise error
        return answer


def _state_of_torch() -> Callable[[], Any]:
    """Makes a context in which another thread has what this one has: code is only valid in the same."""
    inference, grad, threads = torch.is_inference_mode_enabled(), torch.is_grad_enabled(), torch.get_num_threads()
    stream = torch.cuda.current_stream() if torch.cuda.is_initialized() else None

    @contextmanager
    def enter() -> Generator[None]:
        if torch.get_num_threads() != threads:
            torch.set_num_threads(threads)
        # The device of a stream becomes the thread's.
        computing = nullcontext() if stream is None else torch.cuda.stream(stream)
        with torch.inference_mode(inference), torch.set_grad_enabled(grad), computing:
            yield

    return enter
