"""Tells the dispatcher that something may be able to start, from all places that can know it."""

import asyncio
from collections.abc import Callable


class RoomSignal:
    """One event loop."""

    def __init__(self) -> None:
        self.listeners: list[Callable[[], None]] = []

    def tell(self) -> None:
        """Now."""
        for listener in self.listeners:
            listener()

    def tell_soon(self) -> None:
        """Once all others have heard of the change that is being told."""
        asyncio.get_running_loop().call_soon(self.tell)
