"""Converts what a load, and a change of a loaded model, ask for."""

from collections.abc import Mapping

from deviceops.common.v1 import image_pb2
from deviceops.model.v1 import execution_pb2, loaded_model_pb2, model_service_pb2, model_work_pb2
from domains.errors import InvalidRequest, Violation
from domains.model.assembly import assembly_of
from domains.model.execution import AS_USUAL, Execution
from domains.model.loaded import LONGEST_STAY_S, Stay
from domains.processing.jobs.kinds import HostLoadWork, LoadWork
from server import convert
from server.inference.generation_messages import OFFLOADS
from server.model.component_sources import to_components, with_components
from server.model.quantization_messages import check_quantization, quantization_violations
from server.model.way_messages import SERVED_WAYS, from_ways, way_fields, way_violations
from server.unserved import Served, check_served

_PRECISIONS = tuple(image_pb2.Precision.Name(number) for number in convert.PRECISIONS.values())
_TIERS: Mapping[type, loaded_model_pb2.ModelTier.ValueType] = {
    LoadWork: loaded_model_pb2.MODEL_TIER_UNSPECIFIED,
    HostLoadWork: loaded_model_pb2.MODEL_TIER_HOST,
}
_SERVED: Served = {
    "model_id": (),
    "components.component_id": (),
    "components.model_id": (),
    "components.omitted": (),
    "tier": ("MODEL_TIER_DEVICE", "MODEL_TIER_HOST"),
    "pinned": (),
    "keep_alive": (),
    "execution.precision": _PRECISIONS,
    "execution.text_encoder_precision": _PRECISIONS,
    "execution.vae_precision": _PRECISIONS,
    "execution.quantization": (),
    "execution.offload": tuple(map(execution_pb2.OffloadMode.Name, OFFLOADS.values())),
    "execution.offload_budget_bytes": (),
    **{f"execution.{name}": () for name in SERVED_WAYS},
}


def from_load(load: model_work_pb2.ModelLoad, path: str = "model_load") -> LoadWork | HostLoadWork:
    """The work of a load. Raises all violations, those of fields that are not served included."""
    to_host = load.tier == loaded_model_pb2.MODEL_TIER_HOST
    wrong = keep_alive_violations(load, f"{path}.keep_alive")
    if to_host and load.execution.ListFields():
        text = "must be empty: the RAM tier keeps the files as they are, and each device then computes in its own way"
        wrong.append(Violation(field=f"{path}.execution", message=text))
    wrong += execution_violations(load.execution, f"{path}.execution")
    check_served(load, path, _SERVED, InvalidRequest(wrong) if wrong else None)
    check_quantization(load.execution, f"{path}.execution")
    model_id = with_components(load.model_id, load.components, f"{path}.components")
    if to_host:
        return HostLoadWork(model_id=model_id, pin=load.pinned, keep_alive_s=_keep_alive(load))
    return LoadWork(
        model_id=model_id,
        pin=load.pinned,
        keep_alive_s=_keep_alive(load),
        execution=from_execution(load.execution),
    )


SERVED_EXECUTION: Served = {
    name.removeprefix("execution."): values for name, values in _SERVED.items() if name.startswith("execution.")
}
"""Served execution options, with their served values."""


def check_execution(asked: execution_pb2.ExecutionOptions, path: str) -> None:
    """Raise NOT_IMPLEMENTED for execution options that are not served, INVALID_FIELD for those that are wrong,
    NOT_SUPPORTED_ON_DEVICE for a quantization that no device has."""
    wrong = execution_violations(asked, path)
    check_served(asked, path, SERVED_EXECUTION, InvalidRequest(wrong) if wrong else None)
    check_quantization(asked, path)


def execution_violations(asked: execution_pb2.ExecutionOptions, path: str) -> list[Violation]:
    """The violations of values that no server takes."""
    return [
        *_budget_violations(asked, path),
        *quantization_violations(asked, path),
        *way_violations(asked, path),
    ]


def _budget_violations(asked: execution_pb2.ExecutionOptions, path: str) -> list[Violation]:
    budget, allowed = asked.offload_budget_bytes, asked.offload == execution_pb2.OFFLOAD_MODE_LAYER
    if not budget or (allowed and budget > 0):
        return []
    text = f"{budget} is negative" if allowed else "only layers that pass through the device have a budget"
    told = "0.." if allowed else "0 without offload LAYER"
    return [Violation(field=f"{path}.offload_budget_bytes", message=text, allowed=told)]


def from_execution(asked: execution_pb2.ExecutionOptions) -> Execution:
    """The execution options of a request."""
    return Execution(
        precision=_precision(asked.precision),
        text_encoder_precision=_precision(asked.text_encoder_precision),
        vae_precision=_precision(asked.vae_precision),
        quantization=asked.quantization,
        offload=next((word for word, value in OFFLOADS.items() if value == asked.offload), ""),
        offload_budget_bytes=asked.offload_budget_bytes,
        ways=from_ways(asked),
    )


def _precision(number: int) -> str:
    return next((word for word, value in convert.PRECISIONS.items() if value == number), "")


def to_load(work: LoadWork | HostLoadWork) -> model_work_pb2.ModelLoad:
    """The message of a load, as it was asked for."""
    assembly = assembly_of(work.model_id)
    return model_work_pb2.ModelLoad(
        model_id=work.model_id if assembly is None else assembly.base_id,
        components=[] if assembly is None else to_components(assembly),
        pinned=work.pin,
        keep_alive=None if work.keep_alive_s is None else convert.to_duration(work.keep_alive_s),
        execution=to_asked_execution(work.execution) if isinstance(work, LoadWork) else None,
        tier=_TIERS[type(work)],
    )


def to_asked_execution(asked: Execution) -> execution_pb2.ExecutionOptions | None:
    """The message of what was asked for. None: nothing."""
    if asked == AS_USUAL:
        return None
    return execution_pb2.ExecutionOptions(
        precision=convert.to_precision(asked.precision),
        text_encoder_precision=convert.to_precision(asked.text_encoder_precision),
        vae_precision=convert.to_precision(asked.vae_precision),
        quantization=asked.quantization,
        offload=OFFLOADS.get(asked.offload, execution_pb2.OFFLOAD_MODE_UNSPECIFIED),
        offload_budget_bytes=asked.offload_budget_bytes,
        **way_fields(asked.ways),
    )


def from_stay(request: model_service_pb2.UpdateLoadedModelRequest) -> Stay:
    """What a request changes about a loaded model's stay. Raises INVALID_FIELD."""
    convert.refuse(keep_alive_violations(request, "keep_alive"))
    pinned = request.pinned if request.HasField("pinned") else None
    return Stay(pinned=pinned, keep_alive_s=_keep_alive(request))


_KeepAlive = model_work_pb2.ModelLoad | model_service_pb2.UpdateLoadedModelRequest


def _keep_alive(message: _KeepAlive) -> float | None:
    return convert.from_duration(message.keep_alive) if message.HasField("keep_alive") else None


def keep_alive_violations(message: _KeepAlive, path: str) -> list[Violation]:
    """The violations of a keep-alive."""
    seconds = _keep_alive(message)
    if seconds is None or 0 <= seconds <= LONGEST_STAY_S:
        return []
    text = f"{seconds:g} s is not within 0 s..30 d"
    return [Violation(field=path, message=text, allowed="0 s..30 d")]
