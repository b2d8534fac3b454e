"""ModelService: models on disk and loaded models. Methods that are not built answer NOT_IMPLEMENTED."""

from collections.abc import Callable, Sequence
from typing import Any

import grpc

from deviceops.model.v1 import loaded_model_pb2, model_pb2, model_service_pb2, model_work_pb2
from domains import limits
from domains.errors import InvalidRequest, NotServed, Violation
from domains.model.catalogue import Catalogue
from domains.model.loaded import LoadedModel, LoadedModels, outdated
from domains.model.model import Model
from domains.processing.jobs.job import Job
from domains.processing.memory.model_use import users_of
from domains.processing.submit import Submissions
from domains.processing.workers.unload import Unloading
from domains.requests import Asked
from server import convert, paging
from server.heartbeat import Followed
from server.model.messages import to_loaded, to_model, to_scan_failures
from server.processing.watch import submit_and_follow
from server.unserved import Served, check_served

Context = grpc.aio.ServicerContext[Any, Any]


class ModelServicer:
    """Implements ModelService."""

    def __init__(
        self, submissions: Submissions, catalogue: Catalogue, loaded: LoadedModels, unloading: Unloading
    ) -> None:
        self._submissions = submissions
        self._catalogue = catalogue
        self._loaded = loaded
        self._unloading = unloading

    async def ListModels(
        self, request: model_service_pb2.ListModelsRequest, context: Context
    ) -> model_service_pb2.ListModelsResponse:
        """List the models that pass the filter, without their long lists."""
        order = _ORDERS.get(request.order)
        if order is None:
            raise _unserved_order()
        every = [self._message(model, whole=False) for model in self._catalogue.list()]
        chosen = sorted((m for m in every if _accepts(request.filter, m)), key=order)
        begin, size = paging.place_of(request.page_token) or 0, paging.size_of(request.page_size)

        def read(count: int) -> tuple[Sequence[model_pb2.Model], int | None]:
            end = begin + count
            return chosen[begin:end], end if end < len(chosen) else None

        models, following = paging.fill(read, size, lambda model: model)
        return model_service_pb2.ListModelsResponse(
            models=models,
            next_page_token=following,
            total_count=len(chosen),
            failures=[] if begin else to_scan_failures(self._catalogue.not_taken),
        )

    async def GetModel(
        self, request: model_service_pb2.GetModelRequest, context: Context
    ) -> model_service_pb2.GetModelResponse:
        """Return one model in full."""
        model = self._message(self._catalogue.get(request.model_id), whole=True)
        return model_service_pb2.GetModelResponse(model=model)

    def _message(self, model: Model, *, whole: bool) -> model_pb2.Model:
        ids = [one.id for one in self._loaded.list() if one.model_id == model.id]
        return to_model(model, ids, whole=whole)

    def ScanModels(  # yields the bytes of its responses, see `register`
        self, request: model_service_pb2.ScanModelsRequest, context: Context
    ) -> Followed[bytes]:
        """Scan for models and follow the job."""

        def submit(asked: Asked) -> Job:
            roots, options = convert.both(
                lambda: from_scan(request.model_scan), lambda: convert.from_options(request.options)
            )
            return self._submissions.scan(roots, options, asked, detached=request.detached)

        return submit_and_follow(self._submissions, request, context, submit)

    def LoadModel(  # yields the bytes of its responses, see `register`
        self, request: model_service_pb2.LoadModelRequest, context: Context
    ) -> Followed[bytes]:
        """Load a model onto a device and follow the job."""

        def submit(asked: Asked) -> Job:
            load, options = convert.both(
                lambda: from_load(request.model_load), lambda: convert.from_options(request.options)
            )
            return self._submissions.load(load.model_id, options, asked, detached=request.detached, pin=load.pinned)

        return submit_and_follow(self._submissions, request, context, submit)

    async def UnloadModel(
        self, request: model_service_pb2.UnloadModelRequest, context: Context
    ) -> model_service_pb2.UnloadModelResponse:
        """Unload models from their devices."""
        asked = {field.name for field, _ in request.ListFields()}
        unserved = [field for field in ("force", "keep_on_host", "drain_timeout") if field in asked]
        convert.refuse([], [Violation(field=field, message="this server does not serve it yet") for field in unserved])
        done = await self._unloading.unload(self._targets(request))
        return model_service_pb2.UnloadModelResponse(
            loaded_model_ids=done.loaded_ids[: limits.NAMED_IDS],
            freed_device_bytes=done.freed_device_bytes,
            freed_host_bytes=done.freed_host_bytes,
        )

    def _targets(self, request: model_service_pb2.UnloadModelRequest) -> list[LoadedModel]:
        match request.WhichOneof("target"):
            case "loaded_model_id":
                return [self._loaded.get(request.loaded_model_id)]
            case "model_id":
                model = self._catalogue.get(request.model_id)
                return [one for one in self._loaded.list() if one.model_id == model.id]
            case "device_id":
                return [one for one in self._loaded.list() if one.device_id == request.device_id]
            case "all":
                return self._loaded.list()
            case None:
                raise InvalidRequest(
                    [Violation(field="target", message="is not set; set loaded_model_id, model_id, device_id or all")]
                )

    async def ListLoadedModels(
        self, request: model_service_pb2.ListLoadedModelsRequest, context: Context
    ) -> model_service_pb2.ListLoadedModelsResponse:
        """What is on the devices."""
        every = [self._loaded_message(one) for one in self._loaded.list()]
        chosen = [one for one in every if _accepts_loaded(request.filter, one)]
        return model_service_pb2.ListLoadedModelsResponse(loaded_models=chosen)

    async def GetLoadedModel(
        self, request: model_service_pb2.GetLoadedModelRequest, context: Context
    ) -> model_service_pb2.GetLoadedModelResponse:
        """Return one model on a device."""
        loaded = self._loaded.get(request.loaded_model_id)
        return model_service_pb2.GetLoadedModelResponse(loaded_model=self._loaded_message(loaded))

    def _loaded_message(self, loaded: LoadedModel) -> loaded_model_pb2.LoadedModel:
        """With the jobs that run on it now, and whether its files have changed since."""
        users = [job.id for job in users_of(loaded, self._submissions.jobs.unfinished())]
        model = self._catalogue.find(loaded.model_id)
        return to_loaded(loaded, users, outdated=model is not None and outdated(loaded, model.sha256))


_SERVED: Served = {"model_id": (), "tier": ("MODEL_TIER_DEVICE",), "pinned": ()}


def from_scan(scan: model_work_pb2.ModelScan) -> tuple[str, ...]:
    """The roots of a scan. Raises INVALID_FIELD for too many roots, NOT_IMPLEMENTED for fields that are not served."""
    text = "this server hashes changed files only yet; leave it empty"
    unserved = [Violation(field="model_scan.recompute_sha256", message=text)] if scan.recompute_sha256 else []
    convert.refuse(_too_many(scan), unserved)
    return tuple(scan.roots)


def _too_many(scan: model_work_pb2.ModelScan) -> list[Violation]:
    if len(scan.roots) <= limits.ROOTS:
        return []
    text = f"has {len(scan.roots)} folders; at most {limits.ROOTS}"
    return [Violation(field="model_scan.roots", message=text, allowed=f"0..{limits.ROOTS} folders")]


def from_load(load: model_work_pb2.ModelLoad) -> model_work_pb2.ModelLoad:
    """The message of a load. Raises NOT_IMPLEMENTED for fields that are not served."""
    check_served(load, "model_load", _SERVED)
    return load


def _unserved_order() -> NotServed:
    text = "this server does not know these times yet; order by name or size"
    return NotServed([Violation(field="order", message=text)])


_ORDERS: dict[int, Callable[[model_pb2.Model], Any]] = {
    model_service_pb2.MODEL_ORDER_UNSPECIFIED: lambda model: model.id,
    model_service_pb2.MODEL_ORDER_DISPLAY_NAME: lambda model: (model.display_name.casefold(), model.id),
    model_service_pb2.MODEL_ORDER_SIZE: lambda model: (-model.size_bytes, model.id),
}


def _accepts(wanted: model_service_pb2.ModelFilter, model: model_pb2.Model) -> bool:
    """Whether a model meets every condition of the filter that is set."""
    text = wanted.text.casefold()
    devices = {loaded_id.rpartition("@")[2] for loaded_id in model.loaded_model_ids}
    return (
        (not text or text in model.id.casefold() or text in model.display_name.casefold())
        and (not wanted.kinds or model.kind in wanted.kinds)
        and (not wanted.families or model.family in wanted.families)
        and (not wanted.states or model.state in wanted.states)
        and not wanted.labels
        and (not wanted.tasks or bool(set(wanted.tasks) & set(model.tasks)))
        and (not wanted.compatible_family or wanted.compatible_family == model.family)
        and (not wanted.HasField("loaded") or wanted.loaded == bool(model.loaded_model_ids))
        and (not wanted.loaded_on_device_ids or bool(devices & set(wanted.loaded_on_device_ids)))
        and (not wanted.HasField("min_size_bytes") or model.size_bytes >= wanted.min_size_bytes)
        and (not wanted.HasField("max_size_bytes") or model.size_bytes <= wanted.max_size_bytes)
        and (not wanted.sha256 or model.sha256 == wanted.sha256)
    )


def _accepts_loaded(wanted: model_service_pb2.LoadedModelFilter, one: loaded_model_pb2.LoadedModel) -> bool:
    return (
        (not wanted.device_ids or one.device_id in wanted.device_ids)
        and (not wanted.model_ids or one.model_id in wanted.model_ids)
        and (not wanted.states or one.state in wanted.states)
        and (not wanted.HasField("pinned") or wanted.pinned == one.pinned)
        and not wanted.session_id
    )
