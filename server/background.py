"""Tasks that run beside the calls."""

import asyncio
from collections.abc import Callable, Coroutine

Spawn = Callable[[Coroutine[None, None, None]], None]
"""Starts a task that runs beside the calls."""


class Background:
    """Holds the tasks that it starts, and cancels them in `close`."""

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[None]] = set()

    def spawn(self, work: Coroutine[None, None, None]) -> None:
        """Start a task. It ends by itself, or with `close`."""
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def close(self) -> None:
        """Cancel all tasks and wait until they have ended."""
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
