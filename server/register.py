"""Puts a servicer on a server, from the service's descriptor: one table of methods that any transport can host.

Methods that a servicer does not define answer NOT_IMPLEMENTED (UNIMPLEMENTED). Those that yield `bytes` have serialised
their messages themselves (a job's event is serialised once, however many watch it).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import grpc
from google.protobuf.descriptor import MethodDescriptor, ServiceDescriptor
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass

from domains.errors import ErrorReason, NotSupported
from server.once import Once


def register(server: grpc.aio.Server, service: ServiceDescriptor, servicer: object, once: Once | None = None) -> None:
    """Add all methods of a service. `once`: remembers what unary calls with a request_id were answered."""
    once = once or Once()
    handlers = {method.name: _handler(method, servicer, once) for method in service.methods}
    server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler(service.full_name, handlers)])


def missing(service: ServiceDescriptor, servicer: object) -> list[str]:
    """Full names of the methods that the servicer does not define."""
    return [method.full_name for method in service.methods if not hasattr(servicer, method.name)]


def _handler(method: MethodDescriptor, servicer: object, once: Once) -> grpc.RpcMethodHandler[Any, Any]:
    shape = _SHAPES[method.client_streaming, method.server_streaming]
    built = getattr(servicer, method.name, None)
    return shape(
        once.guard(method, built) if built else _unimplemented(method),
        request_deserializer=GetMessageClass(method.input_type).FromString,
        response_serializer=_serialise,
    )


def _serialise(message: Message | bytes) -> bytes:
    return message if isinstance(message, bytes) else message.SerializeToString()


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
