"""ModelService: models on disk and loaded models. Methods that are not built answer NOT_IMPLEMENTED."""

from typing import Any

import grpc

from deviceops.model.v1 import model_service_pb2, model_work_pb2
from domains import limits
from domains.errors import Violation
from domains.memory.blobs.store import BlobStore
from domains.model.blob_models import BlobModels
from domains.model.catalogue import Catalogue
from domains.model.loaded_models import LoadedModels
from domains.processing.jobs.job import Job
from domains.processing.jobs.kinds import ScanWork
from domains.processing.memory.drained_unload import DrainedUnload
from domains.processing.memory.estimates import Estimates
from domains.processing.memory.host_loads import HostLoads
from domains.processing.memory.kept_on_host import KeptOnHost
from domains.processing.memory.prefetch import Prefetching
from domains.processing.memory.usage import ModelUsages
from domains.processing.submit import Submissions
from domains.processing.workers.unload import Unloading
from domains.requests import Asked
from server import convert
from server.heartbeat import Followed
from server.model.benchmark import BenchmarkMethods
from server.model.conversion import ConversionMethods
from server.model.edits import EditMethods
from server.model.estimate import EstimateMethods
from server.model.inspect import inspect_model
from server.model.list_filter import accepting
from server.model.list_page import page_of
from server.model.listed import ListedModels
from server.model.load_messages import from_load
from server.model.loaded_methods import LoadedModelMethods
from server.model.messages import to_model, to_scan_failures
from server.model.prefetch import PrefetchMethods
from server.model.reconcile import ReconcileMethods
from server.model.registering import RegisterMethods
from server.model.usage import put_usage
from server.model.validation import ValidationMethods
from server.processing.watch import submit_and_follow, submit_later_and_follow

Context = grpc.aio.ServicerContext[Any, Any]


class ModelServicer(
    LoadedModelMethods,
    EstimateMethods,
    ValidationMethods,
    EditMethods,
    ReconcileMethods,
    PrefetchMethods,
    RegisterMethods,
    BenchmarkMethods,
    ConversionMethods,
):
    """Implements ModelService."""

    def __init__(
        self,
        submissions: Submissions,
        catalogue: Catalogue,
        loaded: LoadedModels,
        unloading: Unloading,
        estimates: Estimates,
        blobs: BlobStore,
        host_loads: HostLoads,
        prefetching: Prefetching,
        blob_models: BlobModels,
        drained: DrainedUnload,
        usages: ModelUsages,
    ) -> None:
        LoadedModelMethods.__init__(
            self, submissions, catalogue, loaded, drained, blob_models, KeptOnHost(host_loads, loaded, catalogue)
        )
        ValidationMethods.__init__(self, submissions)
        EditMethods.__init__(self, submissions, catalogue, loaded, blob_models)
        ReconcileMethods.__init__(self, submissions, catalogue, loaded, unloading, blobs)
        self._listed = ListedModels()
        self._usages = usages
        EstimateMethods.__init__(self, catalogue, estimates, host_loads)
        BenchmarkMethods.__init__(self, submissions)
        ConversionMethods.__init__(self, submissions)
        PrefetchMethods.__init__(self, submissions, catalogue, prefetching)
        RegisterMethods.__init__(self, catalogue, blob_models)

    async def ListModels(
        self, request: model_service_pb2.ListModelsRequest, context: Context
    ) -> model_service_pb2.ListModelsResponse:
        """List the models that pass the filter, without their long lists."""
        devices = {self._submissions.device_id(name) for name in request.filter.loaded_on_device_ids}
        every = await self._listed.of(self._catalogue.list(), self._loaded_ids, self._usages.of)
        chosen = list(filter(accepting(request.filter, devices), every))
        page, following = page_of(chosen, request)
        return model_service_pb2.ListModelsResponse(
            models=page,
            next_page_token=following,
            total_count=len(chosen),
            failures=[] if request.page_token else to_scan_failures(self._catalogue.not_taken),
        )

    async def GetModel(
        self, request: model_service_pb2.GetModelRequest, context: Context
    ) -> model_service_pb2.GetModelResponse:
        """Return one model in full."""
        model = self._catalogue.get(request.model_id)
        message = to_model(model, self._loaded_ids(model.id))
        put_usage(message, self._usages.of(model.id))
        return model_service_pb2.GetModelResponse(model=message)

    async def InspectModel(
        self, request: model_service_pb2.InspectModelRequest, context: Context
    ) -> model_service_pb2.InspectModelResponse:
        """Say what files are."""
        return await inspect_model(self._catalogue, self._blob_models, request, self._loaded_ids)

    def _loaded_ids(self, model_id: str) -> list[str]:
        return [one.id for one in self._loaded.list() if one.model_id == model_id]

    def ScanModels(  # yields the bytes of its responses, see `register`
        self, request: model_service_pb2.ScanModelsRequest, context: Context
    ) -> Followed[bytes]:
        """Scan for models and follow the job."""

        def submit(asked: Asked) -> Job:
            work, options = convert.both(
                lambda: from_scan(request.model_scan), lambda: convert.from_options(request.options)
            )
            return self._submissions.scan(work, options, asked, detached=request.detached)

        return submit_and_follow(self._submissions, request, context, submit)

    async def LoadModel(  # yields the bytes of its responses, see `register`
        self, request: model_service_pb2.LoadModelRequest, context: Context
    ) -> Followed[bytes]:
        """Load a model onto a device and follow the job."""

        async def submit(asked: Asked) -> Job:
            load, options = convert.both(
                lambda: from_load(request.model_load), lambda: convert.from_options(request.options)
            )
            return await self._submissions.submit_load(load, options, asked, detached=request.detached)

        return await submit_later_and_follow(self._submissions, request, context, submit)


def from_scan(scan: model_work_pb2.ModelScan) -> ScanWork:
    """The scan that is asked for. Raises INVALID_FIELD for too many roots."""
    convert.refuse(_too_many(scan), [])
    return ScanWork(roots=tuple(scan.roots), recompute=scan.recompute_sha256)


def _too_many(scan: model_work_pb2.ModelScan) -> list[Violation]:
    if len(scan.roots) <= limits.ROOTS:
        return []
    text = f"has {len(scan.roots)} folders; at most {limits.ROOTS}"
    return [Violation(field="model_scan.roots", message=text, allowed=f"0..{limits.ROOTS} folders")]
