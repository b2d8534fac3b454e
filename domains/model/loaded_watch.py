"""Follows the loaded models for one reader: a slow one gets the newest state of each model, and never misses an end."""

import asyncio
from collections.abc import Generator
from contextlib import contextmanager

from domains.model.loaded import ENDED, LoadedChange
from domains.model.loaded_models import LoadedModels


class LoadedWatch:
    """The changes that the reader has not taken yet."""

    def __init__(self) -> None:
        self._ends: dict[str, LoadedChange] = {}
        """By loaded model: its newest end."""
        self._newest: dict[str, LoadedChange] = {}
        """By loaded model: its newest state after that."""
        self._more = asyncio.Event()

    def take(self, change: LoadedChange) -> None:
        """Note a change. It replaces an earlier one of the same model."""
        name = change.loaded.id
        self._newest.pop(name, None)
        into = self._ends if change.loaded.state in ENDED else self._newest
        into.pop(name, None)
        into[name] = change
        self._more.set()

    async def next(self) -> LoadedChange:
        """The oldest change that is not taken yet; waits for one."""
        while not self._ends and not self._newest:
            self._more.clear()
            await self._more.wait()
        waiting = min((*self._ends.values(), *self._newest.values()), key=lambda change: change.time_s)
        name = waiting.loaded.id
        # Report a model's end before its next load, even if the clock was set back between them.
        return self._ends.pop(name) if name in self._ends else self._newest.pop(name)


@contextmanager
def watching(loaded: LoadedModels) -> Generator[LoadedWatch]:
    """Follow the loaded models within the block."""
    watch = LoadedWatch()
    loaded.on_change.append(watch.take)
    try:
        yield watch
    finally:
        loaded.on_change.remove(watch.take)
