"""grpc.health.v1: one entry for each service, and one for the server (the empty name).

The asyncio servicer of grpcio-health-checking answers List with INTERNAL, and keeps an entry for every name that was
ever watched.
"""

import asyncio
from collections.abc import AsyncIterator, Mapping
from typing import Any

import grpc
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass
from grpc_health.v1 import health_pb2, health_pb2_grpc

Status = health_pb2.HealthCheckResponse.ServingStatus.ValueType
SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING
_LIST: Any = health_pb2.DESCRIPTOR.services_by_name["Health"].methods_by_name["List"]
_LIST_RESPONSE = GetMessageClass(_LIST.output_type)
"""The response of List, which the stubs do not have."""
_UNKNOWN = health_pb2.HealthCheckResponse.SERVICE_UNKNOWN


class Health:
    """Keeps the entries up to date."""

    def __init__(self) -> None:
        self.servicer = _Servicer()

    async def set(self, serving: Mapping[str, bool], *, hangs: bool = False) -> None:
        """Replace the entries; the server is SERVING if any service is, unless all its devices hang."""
        entries = {"": any(serving.values()) and not hangs, **serving}
        self.servicer.set({service: SERVING if yes else NOT_SERVING for service, yes in entries.items()})


class _Servicer(health_pb2_grpc.HealthServicer):
    def __init__(self) -> None:
        self._statuses: Mapping[str, Status] = {"": SERVING}
        self._changed = asyncio.Event()
        """The event of the next change, which sets and replaces it."""

    def set(self, statuses: Mapping[str, Status]) -> None:
        """Replaces all entries."""
        self._statuses = statuses
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()

    async def Check(  # pyright: ignore[reportIncompatibleMethodOverride]  # the stubs know only the sync one
        self, request: health_pb2.HealthCheckRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> health_pb2.HealthCheckResponse:
        status = self._statuses.get(request.service)
        if status is None:
            await context.abort(grpc.StatusCode.NOT_FOUND, "there is no service of this name; List tells all")
        return health_pb2.HealthCheckResponse(status=status)

    async def List(self, request: object, context: object) -> Message:
        response: Any = _LIST_RESPONSE()
        for service, status in self._statuses.items():
            response.statuses[service].status = status
        return response

    async def Watch(  # pyright: ignore[reportIncompatibleMethodOverride]  # as above
        self, request: health_pb2.HealthCheckRequest, context: object
    ) -> AsyncIterator[health_pb2.HealthCheckResponse]:
        told: Status | None = None
        while True:
            changed = self._changed
            status = self._statuses.get(request.service, _UNKNOWN)
            if status != told:
                told = status
                yield health_pb2.HealthCheckResponse(status=status)
            await changed.wait()
