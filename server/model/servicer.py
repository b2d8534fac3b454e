"""ModelService: models on disk and loaded models. Methods that are not built answer NOT_IMPLEMENTED."""

from collections.abc import Callable, Sequence
from typing import Any

import grpc

from deviceops.model.v1 import model_pb2, model_service_pb2, model_work_pb2
from domains import limits
from domains.errors import NotServed, Violation
from domains.model.catalogue import Catalogue
from domains.model.loaded_models import LoadedModels
from domains.model.model import Model
from domains.processing.jobs.job import Job
from domains.processing.memory.estimates import Estimates
from domains.processing.submit import Submissions
from domains.processing.workers.unload import Unloading
from domains.requests import Asked
from server import convert, paging
from server.heartbeat import Followed
from server.model.estimate import EstimateMethods
from server.model.load_messages import from_load
from server.model.loaded_methods import LoadedModelMethods
from server.model.messages import to_model, to_scan_failures
from server.processing.watch import submit_and_follow

Context = grpc.aio.ServicerContext[Any, Any]


class ModelServicer(LoadedModelMethods, EstimateMethods):
    """Implements ModelService."""

    def __init__(
        self,
        submissions: Submissions,
        catalogue: Catalogue,
        loaded: LoadedModels,
        unloading: Unloading,
        estimates: Estimates,
    ) -> None:
        LoadedModelMethods.__init__(self, submissions, catalogue, loaded, unloading)
        EstimateMethods.__init__(self, catalogue, estimates)

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
            return self._submissions.load(load, options, asked, detached=request.detached)

        return submit_and_follow(self._submissions, request, context, submit)


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
