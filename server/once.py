"""Recognises repeated requests: the part of a request that its `request_id` stands for, and unary calls that run once.

All calls that submit a job share one set of ids, so a caller may repeat a broken LoadModel as SubmitJob, and the other way
round. Every other method has its own set.
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
"""The set of ids that name a job."""

_WORK: dict[str, str] = {
    field.message_type.full_name: field.name
    for field in job_pb2.JobSpec.DESCRIPTOR.oneofs_by_name["work"].fields
    if field.message_type is not None
}
"""By message of a call that submits and follows: the arm of `JobSpec` that holds its work."""
_KEEPS = "keeps_its_answers"


def asked_of(request: Any) -> Asked:
    """The id of a request, and the digest of the fields that a repetition must not change."""
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
    """The SubmitJob request for the same job; None: the request asks for no job. It leaves out `detached` and
    `validate_only`, which do not change the job."""
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
    """The options, or None if they are empty, which means the same."""
    return request.options if request.options.ListFields() else None


def keeps_its_answers(method: Method) -> Method:
    """Mark a method that recognises repeated requests itself, because it stores its results with their requests."""
    setattr(method, _KEEPS, True)
    return method


class Once:
    """Remembers the answers of the unary methods that no store keeps."""

    def __init__(self) -> None:
        self._requests: Requests[Any] = in_memory(Remembered())

    def guard(self, method: MethodDescriptor, behaviour: Unary) -> Unary:
        """The method, which runs once for each `request_id`. Returns it unchanged if its request has no such field."""
        streams = method.client_streaming or method.server_streaming
        if streams or "request_id" not in method.input_type.fields_by_name or hasattr(behaviour, _KEEPS):
            return behaviour

        async def call(request: Any, context: Any) -> Any:
            if getattr(request, "validate_only", False):
                # A dry run changes nothing, and the caller may use the id for the real request.
                return await behaviour(request, context)
            return await self._requests.once(asked_of(request), lambda: behaviour(request, context))

        return call
