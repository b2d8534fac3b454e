"""Driver calls from an event loop: a thread for each device and a deadline, so that a hanging driver blocks nobody."""

import asyncio
import queue
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import suppress
from functools import partial
from typing import Any, TypeVar

from domains.device.device import Device
from domains.device.record import DeviceReach
from domains.device.sample import DeviceSample
from domains.device.telemetry import ALWAYS, PowerRange, Telemetry
from domains.errors import DeviceOpsError, ErrorReason, InternalError

Answer = TypeVar("Answer")

ANSWER_S = 2.0
"""How long a driver may take."""


class DriverThread:
    """Makes one call after the other. A daemon thread, and no pool: one that hangs must not keep the process from ending."""

    def __init__(self, name: str, limit_s: float = ANSWER_S) -> None:
        self.name = name
        self._limit_s = limit_s
        self._calls: queue.SimpleQueue[tuple[Future[Any], Callable[[], Any]] | None] = queue.SimpleQueue()
        self._hung: Future[Any] | None = None
        threading.Thread(target=self._work, name=f"driver-{name}", daemon=True).start()

    @property
    def hangs(self) -> bool:
        """Whether a call is overdue and has still not come back."""
        return self._hung is not None and not self._hung.done()

    async def ask(self, call: Callable[[], Answer]) -> Answer:
        """The answer of `call`. DRIVER_ERROR after the deadline, and at once while an older call is overdue."""
        if self.hangs:
            raise self._overdue()
        answer = self.begin(call)
        waiting = asyncio.wrap_future(answer)
        # Not `wait_for`: a caller that leaves must not cancel the call that others' answers queue behind.
        done, _ = await asyncio.wait({waiting}, timeout=self._limit_s)
        if not done:
            self._hung = answer
            raise self._overdue()
        return waiting.result()

    def begin(self, call: Callable[[], Answer]) -> Future[Answer]:
        """The answer, some time. Whoever asks again and again must wait for it first: one that hangs is followed by none."""
        answer: Future[Answer] = Future()
        self._calls.put((answer, call))
        return answer

    def _overdue(self) -> InternalError:
        return InternalError(
            f"the driver of {self.name} has not answered for {self._limit_s:g} s; if it stays so, restart the machine",
            ErrorReason.DRIVER_ERROR,
            device_id=self.name,
        )

    def stop(self) -> None:
        """End the thread when its calls are done."""
        self._calls.put(None)

    def _work(self) -> None:
        while (task := self._calls.get()) is not None:
            answer, call = task
            if not answer.set_running_or_notify_cancel():
                continue
            try:
                answer.set_result(call())
            except BaseException as error:  # told to whoever asked
                answer.set_exception(error)


class PatientTelemetry:
    """A telemetry for an event loop. What `Telemetry` promises, and never longer than the deadline."""

    def __init__(self, telemetry: Telemetry, limit_s: float = ANSWER_S) -> None:
        self._telemetry = telemetry
        self._limit_s = limit_s
        self._threads: dict[str, DriverThread] = {}

    async def sample(self, device: Device) -> DeviceSample:
        """How it is now; nothing but the time where the driver hangs. Raises only DeviceGone."""
        now = time.time()
        thread = self._thread(device)
        try:
            return await thread.ask(partial(self._telemetry.sample, device))
        except InternalError:
            return DeviceSample(time_s=now)

    async def controls(self, device: Device) -> tuple[str, ...]:
        """As `Telemetry`; DRIVER_ERROR where the driver hangs."""
        return await self._thread(device).ask(partial(self._telemetry.controls, device))

    async def power_range(self, device: Device) -> PowerRange | None:
        """As `Telemetry`; DRIVER_ERROR where the driver hangs."""
        return await self._thread(device).ask(partial(self._telemetry.power_range, device))

    async def set_power_limit(self, device: Device, watts: float | None) -> None:
        """As `Telemetry`; DRIVER_ERROR where the driver hangs."""
        await self._thread(device).ask(partial(self._telemetry.set_power_limit, device, watts))

    async def restore(self, device: Device) -> None:
        """As `Telemetry`; DRIVER_ERROR where the driver hangs."""
        await self._thread(device).ask(partial(self._telemetry.restore, device))

    async def reach(self, device: Device, capacity: int) -> DeviceReach:
        """What can be measured and changed on a device; nothing but `ALWAYS` if its driver fails or hangs."""
        telemetry: tuple[str, ...] = ()
        controls = ALWAYS
        # The next look at the hardware finds a device that is gone.
        with suppress(DeviceOpsError):
            telemetry = (await self.sample(device)).telemetry
            controls = await self.controls(device)
        return DeviceReach(telemetry=telemetry, controls=controls, capacity=capacity)

    def hangs(self, device_id: str) -> bool:
        """Whether the driver owes an answer about this device beyond its deadline."""
        thread = self._threads.get(device_id)
        return thread is not None and thread.hangs

    def close(self) -> None:
        """End the threads; one whose driver hangs ends with the process."""
        for thread in self._threads.values():
            thread.stop()
        self._threads.clear()

    def _thread(self, device: Device) -> DriverThread:
        if device.id not in self._threads:
            self._threads[device.id] = DriverThread(device.id, self._limit_s)
        return self._threads[device.id]
