"""Converts what a load, and a change of a loaded model, ask for."""

from deviceops.model.v1 import model_service_pb2, model_work_pb2
from domains.errors import InvalidRequest, Violation
from domains.model.loaded import LONGEST_STAY_S, Stay
from domains.processing.jobs.kinds import LoadWork
from server import convert
from server.unserved import Served, check_served

_SERVED: Served = {"model_id": (), "tier": ("MODEL_TIER_DEVICE",), "pinned": (), "keep_alive": ()}


def from_load(load: model_work_pb2.ModelLoad) -> LoadWork:
    """The work of a load. Raises all violations, those of fields that are not served included."""
    wrong = keep_alive_violations(load, "model_load.keep_alive")
    check_served(load, "model_load", _SERVED, InvalidRequest(wrong) if wrong else None)
    return LoadWork(model_id=load.model_id, pin=load.pinned, keep_alive_s=_keep_alive(load))


def to_load(work: LoadWork) -> model_work_pb2.ModelLoad:
    """The message of a load, as it was asked for."""
    return model_work_pb2.ModelLoad(
        model_id=work.model_id,
        pinned=work.pin,
        keep_alive=None if work.keep_alive_s is None else convert.to_duration(work.keep_alive_s),
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
