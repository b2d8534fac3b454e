"""Limits a worker's silence: a worker without a report of any order for too long counts as hung and is ended."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

from domains.processing.workers.worker import Worker, WorkerStalled


@asynccontextmanager
async def stall_limit(worker: Worker, limit_s: float) -> AsyncGenerator[None]:
    """Wait for a worker's report. After `limit_s` without a report of any order, end it and raise `WorkerStalled`.

    An order can be blocked behind another job's long order; reports of that one restart the limit.
    """
    loop, waiting = asyncio.get_running_loop(), asyncio.timeout(None)
    try:
        async with waiting:

            def judge() -> None:
                nonlocal timer
                rest_s = limit_s - worker.quiet_s
                if rest_s > 0:
                    timer = loop.call_later(rest_s, judge)
                else:
                    waiting.reschedule(loop.time())

            timer = loop.call_later(limit_s, judge)
            try:
                yield
            finally:
                timer.cancel()
    except TimeoutError:
        if not waiting.expired():
            raise
        why = f"the device told nothing of its work for {limit_s:g} s"
        worker.end(why)
        raise WorkerStalled(why) from None
