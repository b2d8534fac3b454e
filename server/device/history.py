"""QueryDeviceHistory."""

from typing import Any, Protocol

import grpc

from deviceops.device.v1 import device_history_pb2, device_service_pb2, device_status_pb2
from domains.device.history import STEP_S, DeviceHistoryView, DeviceStep
from server import convert
from server.time_span import time_span


class HistorySource(Protocol):
    """The recorded history of all devices."""

    def resolve(self, name: str) -> str:
        """The id of a device by id or alias. Raises DEVICE_NOT_FOUND, STARTING."""
        ...

    def history(self, name: str, start_s: float | None, end_s: float, step_s: float | None) -> DeviceHistoryView:
        """Part of a device's history. Raises DEVICE_NOT_FOUND, STARTING."""
        ...


class DeviceHistoryMethods:
    """Implements the method; the servicer inherits it."""

    def __init__(self, source: HistorySource) -> None:
        self._recorded = source

    async def QueryDeviceHistory(
        self, request: device_service_pb2.QueryDeviceHistoryRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> device_service_pb2.QueryDeviceHistoryResponse:
        """Return part of a device's history."""
        device_id = self._recorded.resolve(request.device_id)
        start_s, end_s, step_s = time_span(request, finest_s=STEP_S)
        history = self._recorded.history(device_id, start_s, end_s, step_s)
        return device_service_pb2.QueryDeviceHistoryResponse(history=to_history(device_id, history))


def to_history(device_id: str, view: DeviceHistoryView) -> device_history_pb2.DeviceHistory:
    """The message of a step; what was not measured is absent."""
    return device_history_pb2.DeviceHistory(
        device_id=device_id,
        samples=map(_sample, view.steps),
        step=convert.to_duration(view.step_s),
        begin_time=None if view.begin_s is None else convert.to_time(view.begin_s),
        total_memory_bytes=view.total_memory_bytes,
    )


_WHOLE = ("used_memory_bytes", "clock_mhz", "memory_clock_mhz")
"""Figures that are whole numbers in the contract."""


def _sample(step: DeviceStep) -> device_history_pb2.DeviceHistorySample:
    figures: dict[str, Any] = step.figures()
    figures |= {name: round(figures[name]) for name in _WHOLE if name in figures}
    return device_history_pb2.DeviceHistorySample(
        sample_time=convert.to_time(step.time_s),
        sample_count=step.sample_count,
        throttle_reasons=[
            device_status_pb2.DeviceThrottleReason.Value(f"DEVICE_THROTTLE_REASON_{reason.name}")
            for reason in sorted(step.throttle_reasons)
        ],
        **figures,
    )
