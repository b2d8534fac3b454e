"""Signals that a job may be able to start."""

import asyncio
from collections.abc import Callable


class RoomSignal:
    """Calls its listeners. One event loop."""

    def __init__(self) -> None:
        self.listeners: list[Callable[[], None]] = []

    def tell(self) -> None:
        """Call the listeners now."""
        for listener in self.listeners:
            listener()

    def tell_soon(self) -> None:
        """Call the listeners after the present callback, when all listeners of the same change were called."""
        asyncio.get_running_loop().call_soon(self.tell)
