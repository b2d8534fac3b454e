"""The loop of a worker: takes orders from the pipe, drives the step loop, sends reports."""

import os
import time
from collections import deque

from structlog.contextvars import bound_contextvars

from domains.device.device import Device
from domains.device.device_names import ordinal
from domains.device.on_device.probe import probe
from domains.device.on_device.torch_device import cannot_use, torch_name
from domains.device.on_device.torch_errors import translate
from domains.device.simulated.describe import describe
from domains.device.simulated.fault_book import SimSetup
from domains.errors import ErrorReason
from domains.inference.on_device import LoadCancelled, OnDeviceModel, StepLoop
from domains.inference.on_device.simulated import SimulatedHardware
from domains.inference.outcome import Failed, Finished, ImageReady, Stopped
from domains.memory.on_device import allocator
from domains.processing.worker import (
    Described,
    EmptyOrder,
    FaultStruck,
    GenerateOrder,
    LoadOrder,
    ModelUnloaded,
    Order,
    Report,
    UnloadOrder,
)
from domains.progress import PreviewReady, Progressed, Receipt, Stage, StageTiming
from domains.stop import Stop, StopKind
from server.stdio.command import Cancelled, Command, Ended, Message, Opened
from server.stdio.ending import Code
from server.stdio.peer import FramePeer
from server.worker import wire
from server.worker.device_orders import DeviceOrders
from server.worker.image_frames import send_image
from server.worker.model_loads import ModelLoads
from server.worker.refusal import failed, renamed

_PIPE_ENDED = Stop(kind=StopKind.CANCEL, cause="the server has ended")
_LAST_WORD_S = 5.0
"""How long the front may take to end a process whose driver has failed."""


class OrderLoop:
    """One thread does everything here; the pipe has its own reader."""

    def __init__(self, peer: FramePeer, name: str, *, pinned: bool = False) -> None:
        """`name`: `cpu`, `cuda:0`, `sim-0`. A simulated device waits for its script first.

        `pinned`: this process sees no other GPU. Raises why it cannot serve the device.
        """
        self._peer = peer
        self._commands: deque[Command] = deque()
        """Taken from the pipe while somebody looked for something else."""
        self._methods: dict[int, str] = {}
        self._simulated = SimulatedHardware(self._first_setup(), self._struck) if name.startswith("sim-") else None
        self._cpu: Device | None = None
        """What a simulated device computes on."""
        self._name = name
        self._torch_name = "cpu" if self._simulated else torch_name(name, pinned=pinned)
        try:
            runtime = allocator.start(self._torch_name)
        except RuntimeError as error:
            raise cannot_use(name, error) from error
        self._steps = StepLoop(self._torch_name, self._report, hardware=self._simulated, stop_of=self._stop_of_job)
        self._device = self._probe()
        self._loads = ModelLoads(self._steps, lambda: self._device.id)
        self._device_orders = DeviceOrders(self._steps, lambda: self._device, self._probe_again, runtime)
        self._call_of: dict[str, int] = {}
        self._poisoned = False
        """The driver has failed: nothing that this process computes is trusted any more. It ends."""
        self._present_call = 0
        """The call of the order that is being taken."""
        self._job_of: dict[int, str] = {}

    def run(self) -> None:
        """Until the pipe ends."""
        busy = False
        while not self._poisoned:
            command = self._next(wait=not busy)
            while command is not None:
                if isinstance(command, Ended):
                    self._steps.close()
                    return
                self._take(command)
                command = self._next(wait=False)
            busy = not self._poisoned and self._steps.tick()
        self._await_the_end()

    def _await_the_end(self) -> None:
        """The front ends this process once it has read why. Where nobody does, it ends itself: it is of no use any more."""
        until_s = time.monotonic() + _LAST_WORD_S
        while (left_s := until_s - time.monotonic()) > 0 and not isinstance(self._peer.next(left_s), Ended):
            pass
        # A poisoned context refuses to be torn down.
        os._exit(1)

    def _next(self, *, wait: bool) -> Command | None:
        return self._commands.popleft() if self._commands else self._peer.next(None if wait else 0)

    def _probe(self) -> Device:
        if self._simulated is None:
            return probe(self._torch_name, ordinal(self._name))
        self._cpu = self._cpu or probe(self._torch_name)
        return describe(self._simulated.device, self._cpu)

    def _probe_again(self) -> Device:
        self._cpu = None
        self._device = self._probe()
        return self._device

    def _first_setup(self) -> SimSetup:
        """The first thing that a simulated device's worker is told."""
        while True:
            match self._peer.next(None):
                case Opened() as command:
                    self._methods[command.call_id] = command.method
                case Message() as command if self._methods.get(command.call_id) == wire.SETUP:
                    del self._methods[command.call_id]
                    self._peer.close(command.call_id)
                    return wire.decode_setup(command.data)
                case Ended():
                    raise SystemExit(0)
                case other:
                    raise AssertionError(f"{other} came before the script of a simulated device")

    def _struck(self, fault_index: int, job_id: str) -> None:
        """Told before the fault takes effect, through the pipe: this process may die next."""
        call_id = self._call_of.get(job_id, self._present_call)
        self._peer.send(call_id, wire.encode(FaultStruck(fault_index=fault_index)))

    def _take(self, command: Command) -> None:
        if self._poisoned:
            return
        match command:
            case Opened():
                self._methods[command.call_id] = command.method
            case Message() if command.call_id in self._methods:
                self._begin(command.call_id, self._methods.pop(command.call_id), command.data)
            case Message() if command.call_id in self._job_of:
                self._steps.show(self._job_of[command.call_id], wire.decode_previews(command.data).previews)
            case Cancelled():
                if command.call_id in self._job_of:
                    self._steps.stop(self._job_of[command.call_id], wire.decode_stop(command.reason))
            case _:
                pass

    def _begin(self, call_id: int, method: str, data: bytes) -> None:
        match method:
            case wire.DESCRIBE:
                self._peer.send(call_id, wire.encode(Described(device=self._device)))
                self._peer.close(call_id)
            case wire.CARRY_OUT:
                self._present_call = call_id
                self._carry_out(call_id, wire.decode_order(data))
            case wire.SETUP if self._simulated:
                self._simulated.set_up(wire.decode_setup(data))
                self._device = self._probe()
                self._peer.close(call_id)
            case _:
                self._peer.close(call_id, Code.UNIMPLEMENTED, f"no method {method}")

    def _carry_out(self, call_id: int, order: Order) -> None:
        with bound_contextvars(job_id=order.job_id):
            self._answer(call_id, order)

    def _answer(self, call_id: int, order: Order) -> None:
        begin = time.monotonic()
        try:
            match order:
                case GenerateOrder():
                    loaded, _ = self._bring(call_id, order)
                    self._call_of[order.job_id] = call_id
                    self._job_of[call_id] = order.job_id
                    self._steps.submit(order.job_id, loaded, order.resolved, order.previews)
                case LoadOrder():
                    _, load_s = self._bring(call_id, order)
                    timing = StageTiming(stage=Stage.LOADING, wall_s=load_s)
                    self._end(call_id, Finished(receipt=Receipt(timings=(timing,))))
                case UnloadOrder():
                    freed = self._loads.unload(order.model_id)
                    self._send(call_id, ModelUnloaded(model_id=order.model_id, freed_bytes=freed))
                    self._end(call_id, Finished(receipt=Receipt()))
                case _:
                    self._about_device(call_id, order)
        except LoadCancelled:
            timing = StageTiming(stage=Stage.LOADING, wall_s=time.monotonic() - begin)
            receipt = Receipt(timings=(timing,))
            stop = self._stop_of(call_id) or _PIPE_ENDED
            self._end(call_id, Stopped(stop=stop, stage=Stage.LOADING, latency_s=0.0, freed_bytes=0, receipt=receipt))
        except Exception as error:
            # One order has failed, in whatever way: the others, and the models that are loaded, are as they were.
            doing = f"carrying out the order {type(order).__name__}"
            self._end(call_id, failed(translate(error, self._steps.device, doing)))

    def _about_device(self, call_id: int, order: Order) -> None:
        """An order about the device itself: at once, between two steps of the jobs."""

        def cancelled() -> bool:
            return self._stop_of(call_id) is not None

        def tell(report: Report) -> None:
            self._peer.try_send(call_id, wire.encode(report))

        begin = time.monotonic()
        for report in self._device_orders.carry_out(order, cancelled, tell):
            self._send(call_id, report)
        if isinstance(order, EmptyOrder) and order.models:
            self._loads.forget_gone()
        if (stop := self._stop_of(call_id)) is not None:
            latency_s = time.monotonic() - begin
            self._end(call_id, Stopped(stop=stop, stage=Stage.MEASURING, latency_s=latency_s, receipt=Receipt()))
        else:
            timing = StageTiming(stage=Stage.MEASURING, wall_s=time.monotonic() - begin)
            self._end(call_id, Finished(receipt=Receipt(timings=(timing,))))

    def _bring(self, call_id: int, order: GenerateOrder | LoadOrder) -> tuple[OnDeviceModel, float]:
        """The order's model on the device, and how long that took."""

        def hint(report: Report) -> None:
            self._peer.try_send(call_id, wire.encode(report))

        def tell(report: Report) -> None:
            self._send(call_id, report)

        payer = order.job_id if isinstance(order, GenerateOrder) else ""
        return self._loads.bring(order.model, tell, hint, lambda: self._stop_of(call_id) is not None, job_id=payer)

    def _stop_of(self, call_id: int) -> Stop | None:
        """The request to stop this call that lies in the pipe; everything else found there waits its turn."""
        while (command := self._peer.next(0)) is not None:
            self._commands.append(command)
        for command in self._commands:
            if isinstance(command, Ended):
                return _PIPE_ENDED
            if isinstance(command, Cancelled) and command.call_id == call_id:
                return wire.decode_stop(command.reason)
        return None

    def _stop_of_job(self, job_id: str) -> Stop | None:
        return self._stop_of(self._call_of[job_id])

    def _report(self, job_id: str, report: Report) -> None:
        """From the step loop."""
        call_id = self._call_of[job_id]
        match report:
            case Finished() | Failed() | Stopped():
                del self._call_of[job_id], self._job_of[call_id]
                self._end(call_id, self._loads.on_receipt(job_id, report))
            case Progressed() | PreviewReady():
                # The next one makes it worthless, so it never waits for a slow front.
                self._peer.try_send(call_id, wire.encode(report))
            case ImageReady():
                send_image(self._peer, call_id, report)
            case _:
                self._send(call_id, report)

    def _send(self, call_id: int, report: Report) -> None:
        self._peer.send(call_id, wire.encode(report))

    def _end(self, call_id: int, last: Finished | Failed | Stopped) -> None:
        if isinstance(last, Failed):
            self._poisoned = self._poisoned or last.reason == ErrorReason.DRIVER_ERROR
            last = last if self._simulated else renamed(last, self._torch_name, self._name)
        self._send(call_id, last)
        self._peer.close(call_id)
