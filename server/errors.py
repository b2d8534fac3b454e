"""Converts errors of the domains to gRPC statuses, with one table and one guard round every method.

A status carries `google.rpc.ErrorInfo` (the reason and the facts) and the standard detail that fits its family. The text of
an unexpected exception is never sent: it goes to the log, and the caller gets INTERNAL.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import aclosing
from typing import Any, NoReturn

import grpc
import structlog
from google.protobuf import any_pb2, duration_pb2
from google.protobuf.message import Message
from google.rpc import error_details_pb2, status_pb2
from grpc_status import rpc_status

from domains import errors, limits
from domains.errors import DeviceOpsError, ErrorReason
from domains.failure import Failure
from domains.system_errors import system_error
from server.scrub import scrubbed
from server.transport import Transport
from server.unreadable import readable, readable_stream, tolerant

CODE_OF: Mapping[type[DeviceOpsError], grpc.StatusCode] = {
    errors.InvalidRequest: grpc.StatusCode.INVALID_ARGUMENT,
    errors.NotFound: grpc.StatusCode.NOT_FOUND,
    errors.AlreadyExists: grpc.StatusCode.ALREADY_EXISTS,
    errors.FailedPrecondition: grpc.StatusCode.FAILED_PRECONDITION,
    errors.Aborted: grpc.StatusCode.ABORTED,
    errors.ResourceExhausted: grpc.StatusCode.RESOURCE_EXHAUSTED,
    errors.DeadlineExceeded: grpc.StatusCode.DEADLINE_EXCEEDED,
    errors.DataLoss: grpc.StatusCode.DATA_LOSS,
    errors.Unavailable: grpc.StatusCode.UNAVAILABLE,
    errors.Unauthenticated: grpc.StatusCode.UNAUTHENTICATED,
    errors.PermissionDenied: grpc.StatusCode.PERMISSION_DENIED,
    errors.NotSupported: grpc.StatusCode.UNIMPLEMENTED,
    errors.InternalError: grpc.StatusCode.INTERNAL,
}

ERROR_DOMAIN = "deviceops"

_log = structlog.get_logger()


def code_of(reason: ErrorReason) -> grpc.StatusCode:
    """The gRPC code of a reason, in a status and in a job's failure."""
    return CODE_OF[errors.FAMILY_OF[reason]]


_MAX_STATUS_BYTES = 4000
"""The largest status. gRPC refuses trailers of more than 8 KiB, and they contain the status a second time in base64."""


def status_of(error: DeviceOpsError) -> status_pb2.Status:
    """The rich status of an error; texts are cut if it would not fit into a response's trailers."""
    status = _status(error, 1 << 20)
    for longest in (500, 100, 20):
        if status.ByteSize() <= _MAX_STATUS_BYTES:
            break
        status = _status(error, longest)
    return status


def _status(error: DeviceOpsError, longest: int) -> status_pb2.Status:
    code: tuple[int, str] = code_of(error.reason).value
    status = status_pb2.Status(code=code[0], message=scrubbed(error.message)[:longest])
    facts = {name: scrubbed(value)[:longest] for name, value in error.facts.items()}
    info = error_details_pb2.ErrorInfo(reason=error.reason, domain=ERROR_DOMAIN, metadata=facts)
    for detail in (info, *_details(error, longest)):
        packed = any_pb2.Any()
        packed.Pack(detail)
        status.details.append(packed)
    return status


def _details(error: DeviceOpsError, longest: int) -> list[Message]:
    details: list[Message] = []
    message = scrubbed(error.message)[:longest]
    match error:
        case errors.InvalidRequest() | errors.NotServed():
            violations = [
                error_details_pb2.BadRequest.FieldViolation(
                    field=v.field[:longest], description=scrubbed(v.message)[:longest]
                )
                for v in error.violations[: limits.VIOLATIONS]
            ]
            details.append(error_details_pb2.BadRequest(field_violations=violations))
        case errors.NotFound() | errors.AlreadyExists():
            kind, name = next(iter(error.facts.items()), ("", ""))
            details.append(
                error_details_pb2.ResourceInfo(
                    resource_type=kind.removesuffix("_id"),
                    resource_name=scrubbed(name)[:longest],
                    description=message,
                )
            )
        case errors.FailedPrecondition():
            violation = error_details_pb2.PreconditionFailure.Violation(
                type=error.reason,
                subject=scrubbed(next(iter(error.facts.values()), ""))[:longest],
                description=message,
            )
            details.append(error_details_pb2.PreconditionFailure(violations=[violation]))
        case errors.ResourceExhausted():
            violation = error_details_pb2.QuotaFailure.Violation(subject=error.reason, description=message)
            details.append(error_details_pb2.QuotaFailure(violations=[violation]))
        case _:
            pass
    if error.retry_after_s is not None and Failure.of(error).retryable:
        delay = duration_pb2.Duration()
        delay.FromNanoseconds(int(error.retry_after_s * 1e9))
        details.append(error_details_pb2.RetryInfo(retry_delay=delay))
    return details


class AnsweringErrors:
    """A transport that answers the errors of every method that is added to it, so that no servicer needs a `try`.

    Each method is wrapped once: an interceptor of grpc.aio would cost each call a coroutine.
    """

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    def add_generic_rpc_handlers(self, handlers: Sequence[grpc.GenericRpcHandler]) -> None:
        """Add services."""
        self._transport.add_generic_rpc_handlers([_Answered(handler) for handler in handlers])

    def add_registered_method_handlers(self, service: str, handlers: object) -> None:
        """Does nothing: generated code passes the same handlers to `add_generic_rpc_handlers`."""


class _Answered(grpc.GenericRpcHandler):
    """Finds the same methods as another, whose errors are answered."""

    def __init__(self, inner: grpc.GenericRpcHandler) -> None:
        self._inner = inner
        self._methods: dict[str, grpc.RpcMethodHandler[Any, Any]] = {}
        """Wrapped, from their first call on: a handler may find its methods in other ways than by a table."""

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler[Any, Any] | None:
        method = str(handler_call_details.method)
        if method not in self._methods:
            handler = self._inner.service(handler_call_details)
            # An unknown method has no handler; gRPC itself answers UNIMPLEMENTED.
            if handler is None:
                return None
            self._methods[method] = _answered(handler, method)
        return self._methods[method]


def _answered(handler: grpc.RpcMethodHandler[Any, Any], method: str) -> grpc.RpcMethodHandler[Any, Any]:
    """A method's handler, unary or stream on either side, with its errors answered."""
    replaced: dict[str, Any] = {"request_deserializer": tolerant(handler.request_deserializer)}
    for shape in ("unary_unary", "stream_unary"):
        if behaviour := getattr(handler, shape):
            replaced[shape] = _guard_unary(_readable(behaviour, handler), method)
    for shape in ("unary_stream", "stream_stream"):
        if behaviour := getattr(handler, shape):
            replaced[shape] = _guard_stream(_readable(behaviour, handler), method)
    return handler._replace(**replaced)  # pyright: ignore[reportAttributeAccessIssue]  # a namedtuple in fact


def _readable(behaviour: Callable[..., Any], handler: grpc.RpcMethodHandler[Any, Any]) -> Callable[..., Any]:
    """The behaviour, which is called only with requests that could be decoded."""
    admit = readable_stream if handler.request_streaming else readable

    def call(request: Any, context: grpc.aio.ServicerContext[Any, Any]) -> Any:
        return behaviour(admit(request), context)

    return call


def _guard_unary(behaviour: Callable[..., Awaitable[Any]], method: str) -> Callable[..., Awaitable[Any]]:
    async def call(request: object, context: grpc.aio.ServicerContext[Any, Any]) -> Any:
        try:
            return await behaviour(request, context)
        except grpc.aio.AbortError:
            raise
        except Exception as error:
            await _answer(error, context, method, request)

    return call


def _guard_stream(
    behaviour: Callable[..., AsyncIterator[Any] | Awaitable[None]], method: str
) -> Callable[..., AsyncIterator[Any]]:
    async def call(request: object, context: grpc.aio.ServicerContext[Any, Any]) -> AsyncIterator[Any]:
        try:
            messages = behaviour(request, context)
            if isinstance(messages, Awaitable):
                # A servicer that writes to the context itself (grpcio's health Watch).
                await messages
                return
            async with aclosing(messages):  # pyright: ignore[reportArgumentType]  # generators
                async for message in messages:
                    yield message
        except grpc.aio.AbortError:
            raise
        except Exception as error:
            await _answer(error, context, method, request)

    return call


async def _answer(
    error: Exception, context: grpc.aio.ServicerContext[Any, Any], method: str, request: object
) -> NoReturn:
    known = error if isinstance(error, DeviceOpsError) else system_error(error)
    if known is None:
        job = {"job_id": job_id} if (job_id := getattr(request, "job_id", "")) else {}
        _log.error("a bug answered a call", method=method, **job, exc_info=error)
        known = errors.InternalError("a fault of the server; its log has the details", ErrorReason.INVARIANT_BROKEN)
    status = rpc_status.to_status(status_of(known))
    await context.abort(status.code, status.details, status.trailing_metadata)
