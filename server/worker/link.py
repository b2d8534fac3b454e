"""The server's end of one worker: sends orders as calls, and returns their messages as reports."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable

from domains.device.device import Device
from domains.device.simulated.fault_counts import SimSetup
from domains.errors import InternalError
from domains.inference.generation import Previews
from domains.inference.outcome import RunFailed, RunFinished
from domains.processing.workers.ask import error_of
from domains.processing.workers.worker import Described, FaultStruck, Order, PreviewOrder, Report, WorkerGone
from domains.stop import Stop
from server.stdio.call import Call
from server.stdio.channel import FrameChannel
from server.stdio.ending import Code
from server.worker import wire
from server.worker.image_frames import ImagePieces, WithBytes


class WorkerLink:
    """Implements `domains.processing.workers.worker.Worker` over frames."""

    def __init__(self, channel: FrameChannel, end: Callable[[str], None], on_fault: Callable[[int], None]) -> None:
        """`end` kills the process, for a reason; `on_fault` gets each scripted fault's index before it takes effect."""
        self.has_finished_work = False
        """Whether a job has run to its end in this worker process."""
        self._channel = channel
        self._end = end
        self._on_fault = on_fault
        self._device: Device | None = None
        self._last_report_s = time.monotonic()
        self._calls: dict[str, Call | None] = {}
        """By order id; None: the call is being opened."""
        self._stop_when_open: dict[str, Stop] = {}
        self._previews: dict[str, Previews] = {}
        """By order id: the newest previews that are not sent yet."""
        self._sending: dict[str, asyncio.Task[None]] = {}
        """By order id: the task that sends previews."""

    @property
    def device(self) -> Device:
        """The device as the worker found it. Known after `describe`."""
        assert self._device is not None, "the worker has not described its device yet"
        return self._device

    @property
    def quiet_s(self) -> float:
        """Seconds since the last report; for an idle worker, since its first order."""
        return time.monotonic() - self._last_report_s

    def end(self, why: str) -> None:
        """Kill the process."""
        self._end(why)

    async def describe(self) -> None:
        """Wait until the worker has probed its device. Raises `WorkerGone`, or why it cannot serve the device."""
        async with await self._channel.open(wire.DESCRIBE, b"") as call:
            async for payload in call:
                answer = wire.decode_report(payload.data)
                if isinstance(answer, RunFailed):
                    raise error_of(answer)
                assert isinstance(answer, Described), "a worker answers Describe with Described or RunFailed"
                self._device = answer.device
                return
            raise WorkerGone(call.status.message if call.status else "it did not describe its device")

    async def set_up(self, setup: SimSetup) -> None:
        """Send the script of a simulated device. Raises `WorkerGone`."""
        async with await self._channel.open(wire.SETUP, wire.encode(setup)) as call:
            async for _ in call:
                pass
            if call.status is None or call.status.code is not Code.OK:
                raise WorkerGone(call.status.message if call.status else "its call broke off")

    async def carry_out(self, order: Order) -> AsyncIterator[Report]:
        """Send an order and follow it to its last report. Raises `WorkerGone`."""
        key, pieces = order.order_id, ImagePieces()
        if not self._calls:
            # No order was in flight.
            self._last_report_s = time.monotonic()
        self._calls[key] = None
        try:
            async with await self._channel.open(wire.CARRY_OUT, wire.encode(order)) as call:
                self._calls[key] = call
                self._send_previews(key)
                if (stop := self._stop_when_open.get(key)) is not None:
                    call.cancel(wire.encode_stop(stop))
                async for payload in call:
                    self._last_report_s = time.monotonic()
                    if payload.raw:
                        pieces.add(payload.data)
                        continue
                    report = wire.decode_report(payload.data)
                    self.has_finished_work |= isinstance(report, RunFinished)
                    if isinstance(report, FaultStruck):
                        self._on_fault(report.fault_index)
                    else:
                        yield pieces.whole(report) if isinstance(report, WithBytes) else report
                if call.status is None or call.status.code is Code.UNAVAILABLE:
                    raise WorkerGone(call.status.message if call.status else "its call broke off")
                if call.status.code is not Code.OK:
                    raise InternalError(f"the worker refused an order: {call.status.message}")
        finally:
            del self._calls[key]
            self._stop_when_open.pop(key, None)
            self._previews.pop(key, None)
            if sending := self._sending.pop(key, None):
                sending.cancel()

    def stop(self, order_id: str, stop: Stop) -> None:
        """Ask a job's order to stop at its next safe point."""
        if order_id in self._calls:
            call = self._calls[order_id]
            self._stop_when_open.setdefault(order_id, stop)
            if call is not None:
                call.cancel(wire.encode_stop(stop))

    def show(self, order_id: str, previews: Previews) -> None:
        """Change the previews of a job's order."""
        if order_id in self._calls:
            self._previews[order_id] = previews
            self._send_previews(order_id)

    def _send_previews(self, order_id: str) -> None:
        """Send the newest previews if the call is open and no others are being sent."""
        call = self._calls[order_id]
        if call is None or order_id not in self._previews or order_id in self._sending:
            return

        async def send() -> None:
            while (previews := self._previews.pop(order_id, None)) is not None:
                await call.send(wire.encode(PreviewOrder(previews=previews)))
            del self._sending[order_id]

        self._sending[order_id] = asyncio.get_running_loop().create_task(send())
