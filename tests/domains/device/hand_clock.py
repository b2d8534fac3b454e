"""Time that a test turns by hand."""

import asyncio


class HandClock:
    """Nothing waits for real time."""

    def __init__(self) -> None:
        self.at = 0.0
        self._waiting: list[tuple[float, asyncio.Future[None]]] = []

    def now(self) -> float:
        """Seconds."""
        return self.at

    async def until(self, when: float) -> None:
        """Wait for `advance` to come by."""
        if when <= self.at:
            return
        waiter = asyncio.get_running_loop().create_future()
        self._waiting.append((when, waiter))
        await waiter

    async def advance(self, to: float) -> None:
        """Go there, stopping wherever somebody waits to be woken."""
        await settle()
        while due := [when for when, waiter in self._waiting if when <= to and not waiter.done()]:
            self.at = max(self.at, min(due))
            for when, waiter in self._waiting:
                if when <= self.at and not waiter.done():
                    waiter.set_result(None)
            self._waiting = [(when, waiter) for when, waiter in self._waiting if not waiter.done()]
            await settle()
        self.at = to


async def settle() -> None:
    """Let everything that can go on go on."""
    for _ in range(30):
        await asyncio.sleep(0)
