"""The loop of a worker: takes orders, drives the step loop, sends reports."""

import os
import time
from collections.abc import Callable
from pathlib import Path

import msgspec
from structlog.contextvars import bound_contextvars

from domains.device.on_device.torch_errors import translate
from domains.device.simulated.fault_counts import SimSetup
from domains.errors import ErrorReason
from domains.inference.given import Given
from domains.inference.on_device import PromptReader, StepLoop
from domains.inference.outcome import ModelPlacing, ModelUnloaded, RunFailed, RunFinished, RunStopped
from domains.model.model import Model
from domains.processing.on_device.channel import Begin, Closed, Command, Describe, OrderChannel, SetUp, Show, StopCall
from domains.processing.on_device.device_orders import DeviceOrders
from domains.processing.on_device.inbox import Inbox
from domains.processing.on_device.model_benchmark import ModelBench
from domains.processing.on_device.refusal import failed, renamed
from domains.processing.on_device.served_device import ServedDevice
from domains.processing.workers.worker import (
    Described,
    FaultStruck,
    GenerateOrder,
    LoadOrder,
    ModelBenchmarkOrder,
    Order,
    PromptsRead,
    ReadPromptsOrder,
    Report,
    UnloadOrder,
)
from domains.progress import PreviewReady, Progressed, Receipt, Stage, StageTiming
from domains.stop import Stop

_END_LIMIT_S = 5.0
"""How long the server may take to end a process whose driver has failed."""


class OrderLoop:
    """Carries out the orders of one channel, all on the calling thread."""

    def __init__(
        self, channel: OrderChannel, name: str, folder_of: Callable[[Model], Path], *, pinned: bool = False
    ) -> None:
        """`name`: `cpu`, `cuda:0`, `sim-0`. A simulated device waits for its script first.

        `folder_of`: where a model's files are on this machine. `pinned`: this process sees no other GPU. Raises as
        `ServedDevice`.
        """
        self._channel = channel
        self._inbox = Inbox(channel)
        setup = self._first_setup() if name.startswith("sim-") else None
        self._served = ServedDevice(name, setup, self._fault_struck, pinned=pinned)
        self._steps = StepLoop(
            self._served.torch_name,
            self._report,
            hardware=self._served.simulated,
            stop_of=self._stop_of_job,
            device_id=self._served.value.id,
        )
        self._folder_of = folder_of
        self._device_orders = DeviceOrders(self._steps, self._served)
        self._prompts = PromptReader()
        self._present_call = 0
        """The call of the order that is being taken."""
        self._call_of: dict[str, int] = {}
        """By job that the step loop runs."""
        self._job_of: dict[int, str] = {}
        self._benches: dict[int, ModelBench] = {}
        """By call: the benchmarks of models that run."""
        self._poisoned = False
        """The driver has failed, so later results of this process may be wrong: it ends."""

    def run(self) -> None:
        """Carry out orders until the server leaves."""
        busy = False
        while not self._poisoned:
            command = self._inbox.take(0 if busy else None)
            while command is not None:
                if isinstance(command, Closed):
                    self._steps.close()
                    return
                if not self._poisoned:
                    self._take(command)
                command = self._inbox.take(0)
            busy = not self._poisoned and self._advance()
        self._wait_for_end()

    def _advance(self) -> bool:
        """Do one unit of work. True while work remains."""
        busy = self._steps.tick()
        for call, bench in list(self._benches.items()):
            last = bench.advance()
            if bench.part_id:
                self._call_of[bench.part_id] = call
            if last is not None:
                del self._benches[call]
                self._end(call, last)
        return busy or bool(self._benches)

    def _wait_for_end(self) -> None:
        """Let the server read the failure and end this process; end it here if the server does not."""
        until_s = time.monotonic() + _END_LIMIT_S
        while (left_s := until_s - time.monotonic()) > 0 and not isinstance(self._channel.next(left_s), Closed):
            pass
        # A failed driver context may hang in its teardown.
        os._exit(1)

    def _first_setup(self) -> SimSetup:
        """Wait for a simulated device's script, which comes before all orders."""
        match self._channel.next(None):
            case SetUp() as command:
                self._channel.close(command.call)
                return command.setup
            case Closed():
                raise SystemExit(0)
            case other:
                raise AssertionError(f"{other} came before the script of a simulated device")

    def _fault_struck(self, fault_index: int, job_id: str) -> None:
        """Report a scripted fault before it takes effect, because it may kill this process."""
        self._channel.send(self._call_of.get(job_id, self._present_call), FaultStruck(fault_index=fault_index))

    def _take(self, command: Command) -> None:
        match command:
            case Describe():
                self._channel.send(command.call, Described(device=self._served.value))
                self._channel.close(command.call)
            case SetUp():
                self._served.set_up(command.setup)
                self._channel.close(command.call)
            case Begin():
                self._present_call = command.call
                with bound_contextvars(job_id=command.order.order_id):
                    self._carry_out(command.call, command.order)
            case Show() if command.call in self._job_of:
                self._steps.show(self._job_of[command.call], command.previews)
            case StopCall() if command.call in self._job_of:
                self._steps.stop(self._job_of[command.call], command.stop)
            case StopCall() if command.call in self._benches:
                self._benches[command.call].stop(command.stop)
            case _:
                # The call has ended meanwhile.
                pass

    def _carry_out(self, call: int, order: Order) -> None:
        begin = time.monotonic()
        try:
            match order:
                case GenerateOrder():
                    self._steps.submit(order.order_id, self._all_here(order.given), order.previews)
                    self._runs(call, order)
                case LoadOrder():
                    self._steps.load(order.order_id, self._here(order.model), order.execution)
                    self._runs(call, order)
                case ModelBenchmarkOrder():
                    tell = self._benchmark_teller(call)
                    self._benches[call] = ModelBench(order, self._here(order.model), self._steps, self._served, tell)
                case ReadPromptsOrder():
                    self._read_prompts(call, order)
                case UnloadOrder():
                    freed = self._steps.unload(order.model_id)
                    self._channel.send(call, ModelUnloaded(model_id=order.model_id, freed_bytes=freed))
                    self._end(call, RunFinished(receipt=Receipt()))
                case _:
                    self._about_device(call, order, begin)
        except Exception as error:
            # Only this order fails; other orders and the loaded models are unchanged.
            doing = f"carrying out the order {type(order).__name__}"
            self._end(call, failed(translate(error, self._steps.device, doing)))

    def _read_prompts(self, call: int, order: ReadPromptsOrder) -> None:
        words = [(word, self._here(entry)) for word, entry in zip(order.textual_inversions, order.words, strict=True)]
        readings = self._prompts.read(self._here(order.model), order.prompts, words)
        self._channel.send(call, PromptsRead(readings=readings))
        self._end(call, RunFinished(receipt=Receipt()))

    def _about_device(self, call: int, order: Order, begin: float) -> None:
        """Carry out an order about the device itself, between two steps of the jobs."""
        for report in self._device_orders.carry_out(order, self._stops(call), self._hints(call)):
            self._channel.send(call, report)
        took_s = time.monotonic() - begin
        if (stop := self._inbox.stop_of(call)) is not None:
            self._end(call, RunStopped(stop=stop, stage=Stage.MEASURING, latency_s=took_s, receipt=Receipt()))
        else:
            timing = StageTiming(stage=Stage.MEASURING, wall_s=took_s)
            self._end(call, RunFinished(receipt=Receipt(timings=(timing,))))

    def _here(self, model: Model) -> Model:
        """The model with its place on this machine. An order names it by its id and its hash too."""
        return msgspec.structs.replace(model, folder=str(self._folder_of(model)))

    def _all_here(self, given: Given) -> Given:
        """What a run was given, each model with its place on this machine."""
        return msgspec.structs.replace(
            given,
            model=self._here(given.model),
            later=tuple(self._here(model) for model in given.later),
            upscaler=None if given.upscaler is None else self._here(given.upscaler),
            detectors=tuple(self._here(detector) for detector in given.detectors),
            loras=tuple(self._here(lora) for lora in given.loras),
            region_loras=tuple(tuple(self._here(lora) for lora in some) for some in given.region_loras),
            words=tuple(self._here(word) for word in given.words),
            controls=tuple(msgspec.structs.replace(one, model=self._here(one.model)) for one in given.controls),
            image_prompts=tuple(
                msgspec.structs.replace(one, model=self._here(one.model), encoder=self._here(one.encoder))
                for one in given.image_prompts
            ),
        )

    def _benchmark_teller(self, call: int) -> Callable[[Report], None]:
        return lambda report: self._pass_on(call, report)

    def _runs(self, call: int, order: GenerateOrder | LoadOrder) -> None:
        """Note that the step loop runs an order."""
        self._call_of[order.order_id] = call
        self._job_of[call] = order.order_id

    def _stops(self, call: int) -> Callable[[], bool]:
        return lambda: self._inbox.stop_of(call) is not None

    def _hints(self, call: int) -> Callable[[Report], None]:
        return lambda report: self._channel.try_send(call, report)

    def _stop_of_job(self, job_id: str) -> Stop | None:
        return self._inbox.stop_of(self._call_of[job_id])

    def _report(self, job_id: str, report: Report) -> None:
        """Pass on a report of the step loop."""
        call = self._call_of[job_id]
        if (bench := self._benches.get(call)) is not None:
            if isinstance(report, RunFinished | RunFailed | RunStopped):
                del self._call_of[job_id]
            bench.take(report)
            return
        match report:
            case RunFinished() | RunFailed() | RunStopped():
                del self._call_of[job_id], self._job_of[call]
                self._end(call, report)
            case _:
                self._pass_on(call, report)

    def _pass_on(self, call: int, report: Report) -> None:
        match report:
            case Progressed() | PreviewReady() | ModelPlacing():
                # A newer one replaces it, so it never waits for a slow server.
                self._channel.try_send(call, report)
            case _:
                self._channel.send(call, report)

    def _end(self, call: int, last: RunFinished | RunFailed | RunStopped) -> None:
        if isinstance(last, RunFailed):
            self._poisoned = self._poisoned or last.reason == ErrorReason.DRIVER_ERROR
            last = last if self._served.simulated else renamed(last, self._served.torch_name, self._served.name)
        self._channel.send(call, last)
        self._channel.close(call)
