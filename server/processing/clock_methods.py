"""ConfirmClock: an operator says that the date is right."""

from collections.abc import Callable
from typing import Any

import grpc

from deviceops.processing.v1 import processing_service_pb2 as pb
from deviceops.processing.v1 import system_status_pb2
from domains.clock import ClockWatch
from server import convert


class ClockMethods:
    """Implements ConfirmClock; the servicer inherits it."""

    def __init__(self, clock: ClockWatch, status: Callable[[], system_status_pb2.SystemStatus]) -> None:
        self._clock = clock
        self._clock_status = status

    async def ConfirmClock(
        self, request: pb.ConfirmClockRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> pb.ConfirmClockResponse:
        """Let the date count as right from now on."""
        convert.refuse(convert.cause_violations(request.cause))
        self._clock.confirm(request.cause)
        return pb.ConfirmClockResponse(status=self._clock_status())
