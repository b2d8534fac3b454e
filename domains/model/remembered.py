"""What is found out about components once."""

from collections.abc import Callable
from typing import Generic, TypeVar

from domains.model.model import Model

Found = TypeVar("Found")


class Remembered(Generic[Found]):
    """What was found out about components, until a scan finds changes. Plans and admission ask on the event loop."""

    def __init__(self, find: Callable[[Model, str], Found]) -> None:
        """`find`: takes a model and one of its components, by id. Where it finds nothing, it is asked again."""
        self._find = find
        self._known: dict[tuple[str, str], tuple[Model, Found]] = {}
        """By model and component; a scan that finds changes makes a new model object."""

    def of(self, model: Model, component: str) -> Found:
        """What `find` returns for a component."""
        known = self._known.get((model.id, component))
        if known is not None and known[0] is model:
            return known[1]
        if found := self._find(model, component):
            self._known[model.id, component] = model, found
        return found
