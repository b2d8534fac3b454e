"""The methods of a server in the test's own process: its handlers with their checks, without a port, workers or tasks."""

import time
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import aclosing, asynccontextmanager, closing
from pathlib import Path
from typing import Any

import grpc
from google.protobuf.descriptor import MethodDescriptor

from domains import storage
from server.server import Server
from server.settings import Settings
from server.stdio.context import CallContext
from server.stdio.transport import Details


class Edge:
    """Hosts services as a transport does, and calls them with bytes."""

    def __init__(self) -> None:
        self._handlers: list[grpc.GenericRpcHandler] = []

    def add_generic_rpc_handlers(self, handlers: Sequence[grpc.GenericRpcHandler]) -> None:
        """Add services."""
        self._handlers.extend(handlers)

    async def handler(self, method: MethodDescriptor) -> Any:
        """The method's handler, with all that is round it."""
        service, _, name = method.full_name.rpartition(".")
        details: Any = Details(f"/{service}/{name}", ())
        return next((found for one in self._handlers if (found := one.service(details)) is not None), None)


async def first_answer(handler: Any, data: bytes) -> CallContext:
    """Decode a request, run the handler to its first answer or its refusal, and leave. The context has the refusal."""
    context = CallContext((), None)
    request = handler.request_deserializer(data)
    asked: Any = _one(request) if handler.request_streaming else request
    try:
        if handler.response_streaming:
            behaviour = handler.stream_stream if handler.request_streaming else handler.unary_stream
            async with aclosing(behaviour(asked, context)) as answers:
                await anext(answers, None)
        else:
            behaviour = handler.stream_unary if handler.request_streaming else handler.unary_unary
            await behaviour(asked, context)
    except grpc.aio.AbortError:
        pass
    finally:
        context.end()
    return context


async def _one(request: Any) -> AsyncIterator[Any]:
    yield request


@asynccontextmanager
async def edge(folder: Path) -> AsyncGenerator[Edge]:
    """The services of a server with a simulated device that has no worker yet."""
    settings = Settings(state=folder / "state", devices=["sim"], port=0)
    with storage.owned(settings.state), closing(storage.open_database(settings.state)) as database:
        server = Server(settings, database, time.monotonic())
        hosted = Edge()
        server.host(hosted)
        yield hosted
        server.streams.cut()
        await server.end_tasks()
