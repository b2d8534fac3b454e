"""Messages of models as a list shows them, kept as long as a model stays as it is: a root can hold thousands."""

from collections.abc import Callable, Iterable

from deviceops.model.v1 import model_pb2
from domains.model.model import Model
from domains.processing.memory.usage import UNUSED, Usage
from server.model.messages import to_model
from server.model.usage import put_usage


class ListedModels:
    """The messages of the last list. One thread."""

    def __init__(self) -> None:
        self._made: dict[str, tuple[Model, model_pb2.Model]] = {}

    def of(
        self, models: Iterable[Model], loaded_ids: Callable[[str], list[str]], usage: Callable[[str], Usage]
    ) -> list[model_pb2.Model]:
        """The messages of all models, without their long lists. `loaded_ids`: where a model is loaded. `usage`: how it was
        used."""
        made = {model.id: (model, self._message(model)) for model in models}
        self._made = made
        return [_now(message, loaded_ids(model.id), usage(model.id)) for model, message in made.values()]

    def _message(self, model: Model) -> model_pb2.Model:
        before = self._made.get(model.id)
        # A scan keeps the same object for a model that did not change.
        return before[1] if before and before[0] is model else to_model(model, [], whole=False)


def _now(message: model_pb2.Model, ids: list[str], usage: Usage) -> model_pb2.Model:
    if not ids and usage == UNUSED:
        return message
    told = model_pb2.Model()
    told.CopyFrom(message)
    told.loaded_model_ids.extend(ids)
    put_usage(told, usage)
    return told
