"""Messages of models as a list shows them, kept as long as a model stays as it is: a root can hold thousands."""

import asyncio
from collections.abc import Callable, Sequence

from deviceops.model.v1 import model_pb2
from domains.model.model import Model
from domains.processing.memory.usage import UNUSED, Usage
from server.model.messages import to_model
from server.model.usage import put_usage

_AT_ONCE = 100
"""Messages that are made in one turn of the event loop: about 20 ms."""


class ListedModels:
    """The messages of the last list. One event loop."""

    def __init__(self) -> None:
        self._made: dict[str, tuple[Model, model_pb2.Model]] = {}

    async def of(
        self, models: Sequence[Model], loaded_ids: Callable[[str], list[str]], usage: Callable[[str], Usage]
    ) -> list[model_pb2.Model]:
        """The messages of all models, without their long lists. `loaded_ids`: where a model is loaded. `usage`: how it was
        used. Lets the event loop run while it makes many."""
        before, made = self._made, dict[str, tuple[Model, model_pb2.Model]]()
        for count, model in enumerate(_unmade(models, before), 1):
            made[model.id] = model, to_model(model, [], whole=False)
            if count % _AT_ONCE == 0:
                await asyncio.sleep(0)
        self._made = {model.id: made.get(model.id) or before[model.id] for model in models}
        return [_now(message, loaded_ids(model.id), usage(model.id)) for model, message in self._made.values()]


def _unmade(models: Sequence[Model], made: dict[str, tuple[Model, model_pb2.Model]]) -> list[Model]:
    """The models that are new or have changed: a scan keeps the same object for a model that did not change."""
    return [model for model in models if (one := made.get(model.id)) is None or one[0] is not model]


def _now(message: model_pb2.Model, ids: list[str], usage: Usage) -> model_pb2.Model:
    if not ids and usage == UNUSED:
        return message
    told = model_pb2.Model()
    told.CopyFrom(message)
    told.loaded_model_ids.extend(ids)
    put_usage(told, usage)
    return told
