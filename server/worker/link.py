"""The front's end of one worker: orders become calls, their messages become reports."""

from collections.abc import AsyncIterator

from domains.device.device import Device
from domains.errors import InternalError
from domains.processing.worker import Order, Report, UnloadOrder, WorkerGone
from server.stdio.call import Call
from server.stdio.channel import FrameChannel
from server.stdio.ending import Code
from server.worker import wire


class WorkerLink:
    """A worker that has described its device. Implements `domains.processing.worker.Worker`."""

    def __init__(self, channel: FrameChannel, device: Device) -> None:
        self._channel = channel
        self._device = device
        self._calls: dict[str, Call | None] = {}
        """By job; None: the call is being opened."""
        self._stop_when_open: set[str] = set()

    @property
    def device(self) -> Device:
        """As the worker found it."""
        return self._device

    @classmethod
    async def greet(cls, channel: FrameChannel) -> "WorkerLink":
        """Wait until the worker has torch and has tried its device. Raises `WorkerGone`."""
        async with await channel.open(wire.DESCRIBE, b"") as call:
            async for payload in call:
                return cls(channel, wire.decode_device(payload.data))
            raise WorkerGone(call.status.message if call.status else "it said nothing of its device")

    async def carry_out(self, order: Order) -> AsyncIterator[Report]:
        """Send an order and follow it to its last report. Raises `WorkerGone`."""
        key = f"unload {order.model_id}" if isinstance(order, UnloadOrder) else order.job_id
        self._calls[key] = None
        try:
            async with await self._channel.open(wire.CARRY_OUT, wire.encode(order)) as call:
                self._calls[key] = call
                if key in self._stop_when_open:
                    call.cancel()
                async for payload in call:
                    yield wire.decode_report(payload.data)
                if call.status is None or call.status.code is Code.UNAVAILABLE:
                    raise WorkerGone(call.status.message if call.status else "its call broke off")
                if call.status.code is not Code.OK:
                    raise InternalError(f"the worker refused an order: {call.status.message}")
        finally:
            del self._calls[key]
            self._stop_when_open.discard(key)

    def stop(self, job_id: str) -> None:
        """Ask the order of a job to stop at its next safe point."""
        if job_id in self._calls:
            call = self._calls[job_id]
            self._stop_when_open.add(job_id)
            if call is not None:
                call.cancel()
