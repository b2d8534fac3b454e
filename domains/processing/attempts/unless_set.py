"""Awaits work unless an event is set first."""

import asyncio
from collections.abc import Awaitable
from typing import TypeVar

Result = TypeVar("Result")


async def unless_set(event: asyncio.Event, work: Awaitable[Result]) -> Result | None:
    """The result of the work. None: the event was set first, and the work was cancelled."""
    loop, waiting = asyncio.get_running_loop(), asyncio.timeout(None)

    async def listen() -> None:
        await event.wait()
        waiting.reschedule(loop.time())

    listening = asyncio.create_task(listen())
    try:
        async with waiting:
            return await work
    except TimeoutError:
        if not waiting.expired():
            raise
        return None
    finally:
        listening.cancel()
