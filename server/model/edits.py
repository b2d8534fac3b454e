"""UpdateModel and ForgetModel."""

from typing import Any

import grpc

from deviceops.model.v1 import model_service_pb2
from domains import limits
from domains.model.blob_models import BlobModels
from domains.model.catalogue import Catalogue
from domains.model.edit import ModelChange, ModelEdits
from domains.model.loaded_models import LoadedModels
from domains.processing.memory.model_use import jobs_that_need
from domains.processing.submit import Submissions
from server import convert
from server.model.messages import to_model

Context = grpc.aio.ServicerContext[Any, Any]


class EditMethods:
    """Implements the calls that change what is known about models."""

    def __init__(self, submissions: Submissions, catalogue: Catalogue, loaded: LoadedModels, blobs: BlobModels) -> None:
        def needed_by(model_id: str) -> list[str]:
            return [job.id for job in jobs_that_need(model_id, submissions.jobs.unfinished())]

        self._edits = ModelEdits(catalogue, loaded, needed_by, lambda model: to_model(model, []).etag, blobs)
        self._loaded = loaded

    async def UpdateModel(
        self, request: model_service_pb2.UpdateModelRequest, context: Context
    ) -> model_service_pb2.UpdateModelResponse:
        """Change a model's display name and labels."""
        change = ModelChange(
            model_id=request.model_id,
            display_name=request.display_name if request.HasField("display_name") else None,
            set_labels=convert.labels_of(request.set_labels),
            remove_label_keys=tuple(request.remove_label_keys),
            etag=request.etag,
        )
        model = self._edits.update(change)
        ids = [one.id for one in self._loaded.list() if one.model_id == model.id]
        return model_service_pb2.UpdateModelResponse(model=to_model(model, ids, whole=False))

    async def ForgetModel(
        self, request: model_service_pb2.ForgetModelRequest, context: Context
    ) -> model_service_pb2.ForgetModelResponse:
        """Forget a model; its files and blobs stay."""
        released = self._edits.forget(request.model_id, request.etag)
        return model_service_pb2.ForgetModelResponse(released_blob_ids=released[: limits.NAMED_IDS])
