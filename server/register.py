"""Puts a servicer on a server, from the service's descriptor: one table of methods that any transport can host.

Methods that a servicer does not define answer UNIMPLEMENTED. Those that yield `bytes` have serialised their messages
themselves (a job's event is serialised once, however many watch it).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import grpc
from google.protobuf.descriptor import MethodDescriptor, ServiceDescriptor
from google.protobuf.message_factory import GetMessageClass

from server.guard import guarded


def register(server: grpc.aio.Server, service: ServiceDescriptor, servicer: object) -> None:
    """Add all methods of a service."""
    handlers = {method.name: _handler(method, servicer) for method in service.methods}
    server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler(service.full_name, handlers)])


def missing(service: ServiceDescriptor, servicer: object) -> list[str]:
    """Full names of the methods that the servicer does not define."""
    return [method.full_name for method in service.methods if not hasattr(servicer, method.name)]


def _handler(method: MethodDescriptor, servicer: object) -> grpc.RpcMethodHandler[Any, Any]:
    shape = _SHAPES[method.client_streaming, method.server_streaming]
    built = getattr(servicer, method.name, None)
    return shape(
        guarded(method, built) if built else _unimplemented(method),
        request_deserializer=GetMessageClass(method.input_type).FromString,
        response_serializer=_as_is,
    )


def _as_is(data: bytes) -> bytes:
    """`guarded` has serialised it."""
    return data


def _unimplemented(method: MethodDescriptor) -> Callable[..., Any]:
    text = f"{method.full_name} is in the contract and not built yet"

    async def unary(request: object, context: grpc.aio.ServicerContext[Any, Any]) -> None:
        await context.abort(grpc.StatusCode.UNIMPLEMENTED, text)

    async def stream(request: object, context: grpc.aio.ServicerContext[Any, Any]) -> Any:
        await context.abort(grpc.StatusCode.UNIMPLEMENTED, text)
        yield

    return stream if method.server_streaming else unary


_SHAPES: dict[tuple[bool, bool], Callable[..., grpc.RpcMethodHandler[Any, Any]]] = {
    (False, False): grpc.unary_unary_rpc_method_handler,
    (False, True): grpc.unary_stream_rpc_method_handler,
    (True, False): grpc.stream_unary_rpc_method_handler,
    (True, True): grpc.stream_stream_rpc_method_handler,
}
