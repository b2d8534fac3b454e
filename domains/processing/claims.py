"""The memory that attempts wait for: a wait that ends when the job is to stop, since no worker could be told of it."""

import asyncio
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, nullcontext

from domains.processing.job import Job


class Claims:
    """One event loop."""

    def __init__(self) -> None:
        self.claimed: Callable[[Job, str], AbstractAsyncContextManager[None]] = lambda job, device_id: nullcontext()
        """Holds the memory that an attempt needs on a device."""
        self._waiting: dict[str, asyncio.Timeout] = {}
        """By job: what ends its wait."""

    async def take(self, job: Job, device_id: str, held: AsyncExitStack) -> None:
        """Into `held`, unless the wait is abandoned. Raises why there is no memory for the job."""
        try:
            async with asyncio.timeout(None) as waiting:
                self._waiting[job.id] = waiting
                await held.enter_async_context(self.claimed(job, device_id))
        except TimeoutError:
            if job.id in self._waiting:
                raise
        finally:
            self._waiting.pop(job.id, None)

    def abandon(self, job_id: str) -> bool:
        """End the job's wait; False: it does not wait."""
        waiting = self._waiting.pop(job_id, None)
        if waiting is not None:
            waiting.reschedule(asyncio.get_running_loop().time())
        return waiting is not None
