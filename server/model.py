"""ModelService: what is on disk and what is loaded, as far as it is built."""

from collections.abc import AsyncIterator
from typing import Any

import grpc
from deviceops.model.v1 import model_pb2, model_service_pb2
from deviceops.model.v1.model_service_pb2_grpc import ModelServiceServicer

from domains.model.catalogue import Catalogue
from domains.model.loaded import LoadedModels
from domains.model.model import Model
from domains.processing.submit import Submissions
from domains.processing.unload import Unloading
from server import convert, paging
from server.model_messages import to_loaded, to_model
from server.watch import door

Context = grpc.aio.ServicerContext[Any, Any]


class ModelServicer(ModelServiceServicer):
    """Models."""

    def __init__(
        self, submissions: Submissions, catalogue: Catalogue, loaded: LoadedModels, unloading: Unloading
    ) -> None:
        self._submissions = submissions
        self._catalogue = catalogue
        self._loaded = loaded
        self._unloading = unloading

    def _message(self, model: Model, *, with_prompts: bool) -> model_pb2.Model:
        ids = [one.id for one in self._loaded.list() if one.model_id == model.id]
        return to_model(model, ids, with_prompts=with_prompts)
