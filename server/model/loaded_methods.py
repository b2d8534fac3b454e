"""ModelService: the calls about loaded models."""

import time
from collections.abc import AsyncIterator
from typing import Any

import grpc

from deviceops.model.v1 import loaded_model_pb2, model_service_pb2
from domains import limits
from domains.errors import InvalidRequest, Violation
from domains.model.blob_models import BlobModels
from domains.model.catalogue import Catalogue
from domains.model.loaded import LoadedModel, LoadedState, outdated
from domains.model.loaded_models import LoadedModels
from domains.processing.memory.drained_unload import LONGEST_DRAIN_S, Drain, DrainedUnload
from domains.processing.memory.kept_on_host import KeptOnHost
from domains.processing.memory.model_use import users_of
from domains.processing.submit import Submissions
from server import convert
from server.model.load_messages import from_stay
from server.model.loaded_watch import Wanted, watch_loaded
from server.model.messages import to_loaded

Context = grpc.aio.ServicerContext[Any, Any]


class LoadedModelMethods:
    """The methods for loaded models."""

    def __init__(
        self,
        submissions: Submissions,
        catalogue: Catalogue,
        loaded: LoadedModels,
        unloading: DrainedUnload,
        blobs: BlobModels,
        kept: KeptOnHost,
    ) -> None:
        self._kept = kept
        self._blob_models = blobs
        self._submissions = submissions
        self._catalogue = catalogue
        self._loaded = loaded
        self._drained_unload = unloading

    async def UnloadModel(
        self, request: model_service_pb2.UnloadModelRequest, context: Context
    ) -> model_service_pb2.UnloadModelResponse:
        """Unload models from their devices, once no job uses them."""
        began_s = time.monotonic()
        drain = _drain(request)
        convert.refuse(drain_violations(drain), [])
        every = self._targets(request)
        waiting = [one for one in every if one.state is LoadedState.OFFLOADED]
        targets = [one for one in every if one.state is not LoadedState.OFFLOADED]
        read = self._blob_models.read_by(targets)
        if request.keep_on_host:
            # Copied first: without room in host memory no model leaves its device. Models in the RAM tier alone stay there.
            targets = [one for one in targets if one.device_id]
            await self._kept.bring(targets)
        try:
            drained = await self._drained_unload.unload(targets, drain)
        finally:
            if request.keep_on_host:
                self._kept.note(targets)
        done = drained.unloaded
        let_go = 0 if request.keep_on_host or not waiting else self._kept.let_go(waiting)
        released = sorted(read - self._blob_models.read_by_any(read, self._loaded.list()))
        names = [*done.loaded_ids, *(one.id for one in waiting)]
        return model_service_pb2.UnloadModelResponse(
            loaded_model_ids=names[: limits.NAMED_IDS],
            freed_device_bytes=done.freed_device_bytes,
            freed_host_bytes=let_go + (done.freed_host_bytes or 0) if let_go else done.freed_host_bytes,
            ended_job_ids=drained.ended_job_ids[: limits.NAMED_IDS],
            duration=convert.to_duration(time.monotonic() - began_s),
            released_blob_ids=released[: limits.NAMED_IDS],
        )

    def _targets(self, request: model_service_pb2.UnloadModelRequest) -> list[LoadedModel]:
        every = [*self._loaded.list(), *self._loaded.offloaded()]
        match request.WhichOneof("target"):
            case "loaded_model_id":
                named = [one for one in every if one.id == request.loaded_model_id]
                return named or [self._loaded.get(request.loaded_model_id)]
            case "model_id":
                model = self._catalogue.get(request.model_id)
                return [one for one in every if one.model_id == model.id]
            case "device_id":
                device_id = self._submissions.device_id(request.device_id)
                return [one for one in every if one.device_id == device_id]
            case "all":
                return every
            case None:
                raise InvalidRequest(
                    [Violation(field="target", message="is not set; set loaded_model_id, model_id, device_id or all")]
                )

    async def ListLoadedModels(
        self, request: model_service_pb2.ListLoadedModelsRequest, context: Context
    ) -> model_service_pb2.ListLoadedModelsResponse:
        """List the models on devices, and those on their way there."""
        wanted = self._wanted(request.filter)
        chosen = [self._loaded_message(one) for one in self._loaded.everything() if wanted(one)]
        return model_service_pb2.ListLoadedModelsResponse(loaded_models=chosen)

    async def GetLoadedModel(
        self, request: model_service_pb2.GetLoadedModelRequest, context: Context
    ) -> model_service_pb2.GetLoadedModelResponse:
        """Return one model on a device."""
        name = request.loaded_model_id
        waiting = next((one for one in self._loaded.offloaded() if one.id == name), None)
        loaded = self._loaded.find(name) or waiting or self._loaded.get(name)
        return model_service_pb2.GetLoadedModelResponse(loaded_model=self._loaded_message(loaded))

    def WatchLoadedModels(
        self, request: model_service_pb2.WatchLoadedModelsRequest, context: Context
    ) -> AsyncIterator[model_service_pb2.WatchLoadedModelsResponse]:
        """Stream the loaded models, then every change of one."""
        return watch_loaded(self._loaded, lambda: self._wanted(request.filter), self._loaded_message)

    async def UpdateLoadedModel(
        self, request: model_service_pb2.UpdateLoadedModelRequest, context: Context
    ) -> model_service_pb2.UpdateLoadedModelResponse:
        """Pin or unpin a loaded model, or set its keep-alive."""
        stay = from_stay(request)
        changed = self._loaded.update(request.loaded_model_id, stay, request.etag)
        return model_service_pb2.UpdateLoadedModelResponse(loaded_model=self._loaded_message(changed))

    def _wanted(self, wanted: model_service_pb2.LoadedModelFilter) -> Wanted:
        """The filter of a request. Raises DEVICE_NOT_FOUND, MODEL_NOT_FOUND."""
        devices = {self._submissions.device_id(name) for name in wanted.device_ids}
        models = {self._catalogue.get(model_id).id for model_id in wanted.model_ids}
        states = set(wanted.states) - {loaded_model_pb2.LOADED_MODEL_STATE_UNSPECIFIED}
        # UNSPECIFIED among the states means every state.
        states = states if len(states) == len(set(wanted.states)) else set[int]()
        pinned = wanted.pinned if wanted.HasField("pinned") else None
        return Wanted(devices, models, states, pinned, wanted.session_id)

    def _loaded_message(self, loaded: LoadedModel) -> loaded_model_pb2.LoadedModel:
        """The message of a loaded model, with the ids of its jobs and whether its files have changed since the load."""
        users = [job.id for job in users_of(loaded, self._submissions.jobs.unfinished())]
        model = self._catalogue.find(loaded.model_id)
        return to_loaded(loaded, users, outdated=model is not None and outdated(loaded, model.sha256))


def _drain(request: model_service_pb2.UnloadModelRequest) -> Drain:
    if not request.HasField("drain_timeout"):
        return Drain(force=request.force)
    return Drain(timeout_s=convert.from_duration(request.drain_timeout), force=request.force)


def drain_violations(drain: Drain) -> list[Violation]:
    """The violations of a drain's time."""
    if 0 <= drain.timeout_s <= LONGEST_DRAIN_S:
        return []
    return [
        Violation(field="drain_timeout", message=f"{drain.timeout_s:g} s is not within 0 s..1 h", allowed="0 s..1 h")
    ]
