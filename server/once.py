"""What a call says, as far as it matters whether it is the same one again; and unary calls that count once.

Every way to submit a job shares one set of ids, so that a door that broke may be asked for again with SubmitJob, and the
other way round. Every other method has its own.
"""

import hashlib
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

from google.protobuf.descriptor import MethodDescriptor

from deviceops.processing.v1 import job_pb2, processing_service_pb2
from domains.requests import NEW, Asked, Remembered, Requests, in_memory

Unary = Callable[[Any, Any], Awaitable[Any]]
Method = TypeVar("Method", bound=Callable[..., Any])

JOBS = "jobs"
"""The scope of ids that name a job."""

_WORK: dict[str, str] = {
    field.message_type.full_name: field.name
    for field in job_pb2.JobSpec.DESCRIPTOR.oneofs_by_name["work"].fields
    if field.message_type is not None
}
"""Which arm of a job's spec holds the work that a door's request carries."""
_KEEPS = "keeps_its_answers"


def asked_of(request: Any) -> Asked:
    """A call as it counts."""
    if not request.request_id:
        return NEW
    submission = _submission(request)
    told: Any = request if submission is None else submission
    plain = type(told)()
    plain.CopyFrom(told)
    plain.ClearField("request_id")
    return Asked(
        scope=request.DESCRIPTOR.full_name if submission is None else JOBS,
        request_id=request.request_id,
        digest=hashlib.sha256(plain.SerializeToString(deterministic=True)).hexdigest(),
    )


def _submission(request: Any) -> processing_service_pb2.SubmitJobRequest | None:
    """A request for a job as SubmitJob would take it: who leaves when, and who only checks, makes no other job of it."""
    if isinstance(request, processing_service_pb2.SubmitJobRequest):
        spec, following = request.spec, request.continue_job_id
    else:
        work = request.DESCRIPTOR.fields_by_number.get(1)
        arm = _WORK.get(work.message_type.full_name) if work is not None and work.message_type else None
        if work is None or arm is None or "options" not in request.DESCRIPTOR.fields_by_name:
            return None
        spec, following = job_pb2.JobSpec(**{arm: getattr(request, work.name)}), ""
    return processing_service_pb2.SubmitJobRequest(spec=spec, options=_options(request), continue_job_id=following)


def _options(request: Any) -> Any:
    """Absent where they say nothing: that is the same."""
    return request.options if request.options.ListFields() else None


def keeps_its_answers(method: Method) -> Method:
    """Marks a verb that looks up its requests by itself, where what it makes is written down with them."""
    setattr(method, _KEEPS, True)
    return method


class Once:
    """For the unary verbs whose answers nothing else keeps."""

    def __init__(self) -> None:
        self._requests: Requests[Any] = in_memory(Remembered())

    def guard(self, method: MethodDescriptor, behaviour: Unary) -> Unary:
        """The verb, asked only for what was not answered before; itself where its request has no `request_id`."""
        streams = method.client_streaming or method.server_streaming
        if streams or "request_id" not in method.input_type.fields_by_name or hasattr(behaviour, _KEEPS):
            return behaviour

        async def call(request: Any, context: Any) -> Any:
            if getattr(request, "validate_only", False):
                # It changes nothing, and the id is still to be used.
                return await behaviour(request, context)
            return await self._requests.once(asked_of(request), lambda: behaviour(request, context))

        return call
