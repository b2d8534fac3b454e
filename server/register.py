"""Registers a servicer on a transport, from the service's descriptor: one table of methods that any transport can host.

Methods that a servicer does not define answer NOT_IMPLEMENTED (UNIMPLEMENTED). Methods that yield `bytes` have serialised
their messages themselves (a job's event is serialised once for all readers). All streams that follow something get
heartbeats here.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing
from inspect import isawaitable
from typing import Any

import grpc
from google.protobuf.descriptor import MethodDescriptor, ServiceDescriptor
from google.protobuf.message_factory import GetMessageClass

from domains.errors import ErrorReason, NotSupported
from server.guard import guarded
from server.heartbeat import HEARTBEAT_S, Followed, follows, with_heartbeats
from server.leaving import Streams
from server.once import Once
from server.transport import Transport


def register(
    transport: Transport,
    service: ServiceDescriptor,
    servicer: object,
    once: Once | None = None,
    heartbeat_s: float = HEARTBEAT_S,
    streams: Streams | None = None,
) -> None:
    """Add all methods of a service.

    `once`: remembers the answers to unary calls with a request_id; `heartbeat_s`: the longest silence of a stream that
    follows something; `streams`: cuts open streams when the server goes.
    """
    once, streams = once or Once(), streams or Streams()
    handlers = {method.name: _handler(method, servicer, once, heartbeat_s, streams) for method in service.methods}
    transport.add_generic_rpc_handlers([grpc.method_handlers_generic_handler(service.full_name, handlers)])


def missing(service: ServiceDescriptor, servicer: object) -> list[str]:
    """Full names of the methods that the servicer does not define."""
    return [method.full_name for method in service.methods if not hasattr(servicer, method.name)]


def _handler(
    method: MethodDescriptor, servicer: object, once: Once, heartbeat_s: float, streams: Streams
) -> grpc.RpcMethodHandler[Any, Any]:
    shape = _SHAPES[method.client_streaming, method.server_streaming]
    behaviour = getattr(servicer, method.name, None)
    if behaviour is None:
        behaviour = _unimplemented(method)
    elif follows(method):
        behaviour = _kept_alive(method, behaviour, heartbeat_s, streams)
    elif method.server_streaming:
        behaviour = _until_cut(behaviour, streams)
    else:
        behaviour = once.guard(method, behaviour)
    return shape(
        guarded(method, behaviour),
        request_deserializer=GetMessageClass(method.input_type).FromString,
        response_serializer=_as_is,
    )


def _kept_alive(
    method: MethodDescriptor, behaviour: Callable[..., Any], heartbeat_s: float, streams: Streams
) -> Callable[..., Any]:
    empty = GetMessageClass(method.output_type)

    def stream(request: object, context: grpc.aio.ServicerContext[Any, Any]) -> AsyncGenerator[Any]:
        told = behaviour(request, context)
        if isawaitable(told):
            told = _later(told, empty)
        messages, beat = (told.messages, told.beat) if isinstance(told, Followed) else (told, empty)
        return with_heartbeats(messages, beat, heartbeat_s, streams)

    return stream


def _later(coming: Awaitable[Followed[Any]], empty: Callable[[], Any]) -> Followed[Any]:
    """A stream that awaits `coming` first. Its heartbeats are empty until then."""
    there: list[Followed[Any]] = []

    async def messages() -> AsyncGenerator[Any]:
        there.append(await coming)
        async with aclosing(there[0].messages) as told:
            async for message in told:
                yield message

    return Followed(messages(), lambda: there[0].beat() if there else empty())


def _until_cut(behaviour: Callable[..., Any], streams: Streams) -> Callable[..., Any]:
    def stream(request: object, context: grpc.aio.ServicerContext[Any, Any]) -> AsyncGenerator[Any]:
        return streams.until_cut(behaviour(request, context))

    return stream


def _as_is(data: bytes) -> bytes:
    """The answer itself: `guarded` has serialised it."""
    return data


def _unimplemented(method: MethodDescriptor) -> Callable[..., Any]:
    def refusal() -> NotSupported:
        text = f"{method.full_name} is in the contract and not built yet"
        return NotSupported(text, ErrorReason.NOT_IMPLEMENTED, method=method.full_name)

    async def unary(request: object, context: grpc.aio.ServicerContext[Any, Any]) -> None:
        raise refusal()

    async def stream(request: object, context: grpc.aio.ServicerContext[Any, Any]) -> Any:
        raise refusal()
        yield

    return stream if method.server_streaming else unary


_SHAPES: dict[tuple[bool, bool], Callable[..., grpc.RpcMethodHandler[Any, Any]]] = {
    (False, False): grpc.unary_unary_rpc_method_handler,
    (False, True): grpc.unary_stream_rpc_method_handler,
    (True, False): grpc.stream_unary_rpc_method_handler,
    (True, True): grpc.stream_stream_rpc_method_handler,
}
