"""What is found out about models and their components once."""

import asyncio
from collections import OrderedDict
from collections.abc import Callable
from typing import Generic, TypeVar

from domains.model.model import Model

Found = TypeVar("Found")
MOST = 1024
"""Most findings that are kept: models come and go while the server runs."""


class Remembered(Generic[Found]):
    """What was found out about components, until a scan finds changes. Plans and admission ask on the event loop."""

    def __init__(self, find: Callable[[Model, str], Found]) -> None:
        """`find`: takes a model and one of its components, by id. Where it finds nothing, it is asked again."""
        self._find = find
        self._known: OrderedDict[tuple[str, str], tuple[Model, Found]] = OrderedDict()
        """By model and component; a scan that finds changes makes a new model object. The one asked for last comes last."""

    def of(self, model: Model, component: str = "") -> Found:
        """What `find` returns for a component; empty: for the whole model."""
        key = model.id, component
        known = self._known.get(key)
        if known is not None and known[0] is model:
            self._known.move_to_end(key)
            return known[1]
        if found := self._find(model, component):
            self._keep(key, model, found)
        return found

    async def read(self, model: Model, component: str = "") -> None:
        """Find it out beside the event loop, so that `of` returns at once."""
        key = model.id, component
        known = self._known.get(key)
        if (known is None or known[0] is not model) and (
            found := await asyncio.to_thread(self._find, model, component)
        ):
            self._keep(key, model, found)

    def _keep(self, key: tuple[str, str], model: Model, found: Found) -> None:
        self._known[key] = model, found
        self._known.move_to_end(key)
        while len(self._known) > MOST:
            self._known.popitem(last=False)
