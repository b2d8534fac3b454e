"""grpc.health.v1: one entry for each service, and one for the whole (the empty name)."""

from collections.abc import Mapping

from grpc_health.v1 import health_pb2
from grpc_health.v1.health import aio  # pyright: ignore[reportAttributeAccessIssue]  # the stubs know only the sync one

SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING


class Health:
    """Keeps the entries up to date; `Watch` and the journal of its watchers are grpcio's own servicer's."""

    def __init__(self) -> None:
        self.servicer = aio.HealthServicer()

    async def set(self, serving: Mapping[str, bool]) -> None:
        """The whole serves if anything does."""
        for service, yes in {"": any(serving.values()), **serving}.items():
            await self.servicer.set(service, SERVING if yes else NOT_SERVING)
