"""ModelService: EstimateModel."""

import asyncio
from collections.abc import Sequence
from typing import Any

import grpc

from deviceops.model.v1 import model_estimate_pb2, model_service_pb2
from domains.errors import ErrorReason, InvalidRequest, NotServed, Violation
from domains.inference.limits import EDGE_MULTIPLE_PX, EDGE_PX, EDGES
from domains.inference.resolution.resolve import usable
from domains.model.catalogue import Catalogue
from domains.model.finding import ModelFinding
from domains.model.model import Model
from domains.processing.jobs.kinds import HostLoadWork
from domains.processing.memory.estimates import MAX_BATCH, Estimate, Estimates, Shape
from domains.processing.memory.host_loads import HostLoads
from server import convert
from server.inference.generation_messages import to_execution
from server.model.findings import to_finding
from server.model.load_messages import from_load

Context = grpc.aio.ServicerContext[Any, Any]
_EVICTIONS = 256


class EstimateMethods:
    """The method for estimates."""

    def __init__(self, catalogue: Catalogue, estimates: Estimates, host_loads: HostLoads) -> None:
        self._catalogue = catalogue
        self._estimates = estimates
        self._host_loads = host_loads

    async def EstimateModel(
        self, request: model_service_pb2.EstimateModelRequest, context: Context
    ) -> model_service_pb2.EstimateModelResponse:
        """Forecast what a load and its use cost."""
        _check(request)
        load = from_load(request.model_load)
        await asyncio.to_thread(self._catalogue.hash_sources, load.model_id)
        model = self._catalogue.get(load.model_id) if load.model_id else self._catalogue.default()
        usable(model)
        convert.check_nodes(request.devices)
        if isinstance(load, HostLoadWork):
            return model_service_pb2.EstimateModelResponse(estimates=[await self._to_host(model, request)])
        shape = _shape(request, model)
        found = await self._estimates.of(
            model, load.execution, request.devices.device_ids, shape, allow_cpu=request.devices.allow_cpu
        )
        return model_service_pb2.EstimateModelResponse(estimates=[to_estimate(one, shape) for one in found])

    async def _to_host(
        self, model: Model, request: model_service_pb2.EstimateModelRequest
    ) -> model_estimate_pb2.ModelEstimate:
        """The forecast of a load into the RAM tier. Raises INVALID_FIELD if it names a device."""
        if request.devices.device_ids:
            text = "must be empty: the RAM tier is of no device"
            raise InvalidRequest([Violation(field="devices", message=text)])
        found = await self._host_loads.forecast(model)
        load_s, count = self._estimates.load_s(model, "", found.size_bytes)
        refusal = self._host_loads.no_room(model, found.size_bytes).message
        short = ModelFinding(reason=ErrorReason.BUDGET_EXCEEDED, message=refusal)
        return model_estimate_pb2.ModelEstimate(
            fits=not found.shortfall_bytes,
            shortfall_bytes=found.shortfall_bytes,
            host_bytes=found.size_bytes,
            load_time=None if load_s is None else convert.to_duration(load_s),
            evictions=_evictions(found.evictions),
            sample_count=count,
            findings=[to_finding(short)] if found.shortfall_bytes else [],
        )


def _evictions(evictions: Sequence[tuple[str, int]]) -> list[model_estimate_pb2.ModelEviction]:
    return [
        model_estimate_pb2.ModelEviction(loaded_model_id=loaded_id, freed_bytes=size)
        for loaded_id, size in evictions[:_EVICTIONS]
    ]


def _check(request: model_service_pb2.EstimateModelRequest) -> None:
    """Raise INVALID_FIELD for what is out of range, NOT_IMPLEMENTED for what is not served."""
    unserved = [
        Violation(field=path, message="this server does not serve it yet; leave it empty")
        for path, is_set in (
            ("fallback", request.HasField("fallback")),
            ("devices.strategy", bool(request.devices.strategy)),
            ("devices.node_labels", bool(request.devices.node_labels)),
        )
        if is_set
    ]
    wrong: list[Violation] = []
    if request.HasField("batch_size") and not 1 <= request.batch_size <= MAX_BATCH:
        text = f"{request.batch_size} is not within 1..{MAX_BATCH}"
        wrong.append(Violation(field="batch_size", message=text, allowed=f"1..{MAX_BATCH}"))
    if request.HasField("size"):
        edges = ("width_px", request.size.width_px), ("height_px", request.size.height_px)
        wrong += [
            Violation(field=f"size.{name}", message=f"{edge} is not one of {EDGES}", allowed=EDGES)
            for name, edge in edges
            if not EDGE_PX[0] <= edge <= EDGE_PX[1] or edge % EDGE_MULTIPLE_PX
        ]
    if wrong:
        raise InvalidRequest([*unserved, *wrong])
    if unserved:
        raise NotServed(unserved)


def _shape(request: model_service_pb2.EstimateModelRequest, model: Model) -> Shape:
    images = request.batch_size if request.HasField("batch_size") else 1
    if request.HasField("size"):
        return Shape(width_px=request.size.width_px, height_px=request.size.height_px, images=images)
    width, height = model.native_width_px or EDGE_PX[0], model.native_height_px or EDGE_PX[0]
    return Shape(width_px=width, height_px=height, images=images)


def to_estimate(estimate: Estimate, shape: Shape) -> model_estimate_pb2.ModelEstimate:
    """The message of a forecast."""
    weights, activation = estimate.weights_bytes, estimate.activation_bytes
    on_host = estimate.device.id == "cpu"
    shortfall = estimate.shortfall_bytes
    return model_estimate_pb2.ModelEstimate(
        device_id=estimate.device.id,
        fits=not shortfall and not estimate.unsupported,
        shortfall_bytes=shortfall,
        weights_bytes=weights,
        activation_bytes=activation,
        peak_device_bytes=None if activation is None else weights + activation,
        available_device_bytes=estimate.available_bytes,
        host_bytes=weights if on_host else None,
        max_batch_size=estimate.max_batch(shape),
        load_time=None if estimate.load_s is None else convert.to_duration(estimate.load_s),
        step_time=None if estimate.step_s is None else convert.to_duration(estimate.step_s),
        execution=to_execution({part.component: part.precision for part in estimate.parts}, estimate.execution),
        components=[
            model_estimate_pb2.ComponentEstimate(
                component_id=part.component,
                device_bytes=0 if on_host else part.bytes,
                host_bytes=part.bytes if on_host else 0,
                shared_with_loaded_model_ids=part.shared_with,
            )
            for part in estimate.parts
        ],
        evictions=_evictions(estimate.evictions),
        sample_count=estimate.sample_count,
        findings=map(to_finding, estimate.findings()),
    )
