"""A pool of threads that runs nothing that it has refused."""

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import ParamSpec, TypeVar

_Given = ParamSpec("_Given")
_Result = TypeVar("_Result")


class ThreadPool(ThreadPoolExecutor):
    """Python's own pool queues the work before it starts a thread. Where the system refuses the thread, `submit` raises, and
    a thread that runs already still does the work: after its caller was told that it failed."""

    def submit(self, fn: Callable[_Given, _Result], /, *args: _Given.args, **kwargs: _Given.kwargs) -> Future[_Result]:
        """As `Executor.submit`. After `RuntimeError` the work is never done."""
        answer = Future[_Result]()

        def work() -> None:
            if not answer.set_running_or_notify_cancel():
                return
            try:
                result = fn(*args, **kwargs)
            except BaseException as error:  # passed to the caller
                answer.set_exception(error)
            else:
                answer.set_result(result)

        try:
            super().submit(work)
        except RuntimeError:
            if answer.cancel():
                raise
            # Another thread has begun it.
        return answer
