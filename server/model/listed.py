"""Messages of models as a list shows them, kept as long as a model stays as it is: a root can hold thousands."""

from collections.abc import Callable, Iterable

from deviceops.model.v1 import model_pb2
from domains.model.model import Model
from server.model.messages import to_model


class ListedModels:
    """The messages of the last list. One thread."""

    def __init__(self) -> None:
        self._made: dict[str, tuple[Model, model_pb2.Model]] = {}

    def of(self, models: Iterable[Model], loaded_ids: Callable[[str], list[str]]) -> list[model_pb2.Model]:
        """The messages of all models, without their long lists. `loaded_ids`: where a model is loaded."""
        made = {model.id: (model, self._message(model)) for model in models}
        self._made = made
        return [_loaded(message, loaded_ids(model.id)) for model, message in made.values()]

    def _message(self, model: Model) -> model_pb2.Model:
        before = self._made.get(model.id)
        # A scan that finds nothing changed keeps the value itself.
        return before[1] if before and before[0] is model else to_model(model, [], whole=False)


def _loaded(message: model_pb2.Model, ids: list[str]) -> model_pb2.Model:
    if not ids:
        return message
    told = model_pb2.Model()
    told.CopyFrom(message)
    told.loaded_model_ids.extend(ids)
    return told
