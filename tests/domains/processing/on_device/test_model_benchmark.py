"""A benchmark measures what it runs, and leaves the device as it was, however it ends."""

from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from domains.errors import ErrorReason, ResourceExhausted
from domains.inference.benchmark import benchmark_cases
from domains.inference.on_device.compiling import inductor
from domains.inference.on_device.families.family import KeepOn
from domains.inference.on_device.run import Run
from domains.inference.outcome import ModelLoaded, ModelUnloaded, RunFailed, RunFinished, RunStopped
from domains.memory.measure import OwnerKind
from domains.model.benchmark import ModelBenchmark, ModelBenchmarkReport
from domains.model.model import Model
from domains.processing.on_device.channel import Begin, Closed, Command, StopCall
from domains.processing.on_device.orders import OrderLoop
from domains.processing.workers.worker import (
    LoadOrder,
    Measured,
    MeasureOrder,
    ModelBenchmarked,
    ModelBenchmarkOrder,
    Report,
)
from domains.progress import Progressed, Stage
from domains.stop import Stop, StopKind
from tests.domains.inference.on_device.tiny_model import write_tiny_model
from tests.domains.processing.on_device.test_orders import Mailbox, folder_of

SMALL = (64, 64)
STOP = Stop(kind=StopKind.CANCEL, cause="not wanted")
MEASURE = MeasureOrder(order_id="measure-1")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Model:
    return write_tiny_model(tmp_path_factory.mktemp("models") / "tiny")


def order(model: Model, **asked: object) -> ModelBenchmarkOrder:
    plain = {"sizes": (SMALL,), "steps": 2, "runs": 1, "warmup_runs": 0} | asked
    wanted = msgspec.convert({"model_id": model.id, **plain}, ModelBenchmark)
    return ModelBenchmarkOrder(order_id="job-1", model=model, asked=wanted, cases=tuple(benchmark_cases(wanted, model)))


def wanted(report: Report) -> bool:
    """Nothing stops the call."""
    return False


class Box(Mailbox):
    """Gives an order when the one before has ended, keeps progress too, and stops a call at a report that is `unwanted`."""

    def __init__(self, *commands: Command, unwanted: Callable[[Report], bool] = wanted) -> None:
        super().__init__(*commands)
        self.begun = 0
        self.unwanted = unwanted

    def next(self, timeout_s: float | None) -> Command | None:
        if self.commands and isinstance(self.commands[0], StopCall):
            return self.commands.popleft()
        if self.commands and len(self.closed) == self.begun:
            self.begun += 1
            return self.commands.popleft()
        return Closed() if timeout_s is None else None

    def try_send(self, call: int, report: Report) -> None:
        self.send(call, report)
        if self.unwanted(report):
            self.unwanted = wanted
            self.commands.appendleft(StopCall(call=call, stop=STOP))


def carried_out(*orders: ModelBenchmarkOrder | LoadOrder, unwanted: Callable[[Report], bool] = wanted) -> Box:
    """What a worker reports on the orders, and then on its memory."""
    calls = [*orders, MEASURE]
    box = Box(*(Begin(call=number, order=one) for number, one in enumerate(calls)), unwanted=unwanted)
    OrderLoop(box, "cpu", folder_of).run()
    return box


def report_in(box: Box, call: int = 0) -> ModelBenchmarkReport:
    (report,) = (one.report for one in box.of(call) if isinstance(one, ModelBenchmarked))
    return report


def models_on_the_device(box: Box, call: int) -> list[str]:
    (measured,) = (one.measure for one in box.of(call) if isinstance(one, Measured))
    return [owner.id for owner in measured.owners if owner.kind is OwnerKind.LOADED_MODEL]


def test_each_size_with_each_number_of_pictures_is_measured_as_often_as_asked(model: Model) -> None:
    box = carried_out(order(model, batch_sizes=(1, 2), runs=2, warmup_runs=1, load_runs=2))
    report = report_in(box)
    assert isinstance(box.of(0)[-1], RunFinished)
    assert [(case.images, case.steps, case.failure) for case in report.cases] == [(1, 2, None), (2, 2, None)]
    for case in report.cases:
        assert case.run is not None
        assert case.step is not None
        assert (case.run.sample_count, case.step.sample_count) == (2, 4)
        # A run has its steps, and more: the prompt, the pictures.
        assert case.run.longest_s > 2 * case.step.shortest_s > 0
        assert case.images_per_s == case.images / case.run.mean_s
        assert case.peak_device_bytes is None, "a CPU's tensors lie in the heap of the process"
    assert report.load is not None
    assert report.load.sample_count == 2
    assert dict(report.precisions)["unet"]
    assert report.model_sha256 == model.sha256
    # Two loads are measured, and the second one stays for the runs.
    assert [type(one) for one in box.of(0) if isinstance(one, ModelLoaded | ModelUnloaded)] == [
        *(ModelLoaded, ModelUnloaded),
        *(ModelLoaded, ModelUnloaded),
    ]
    steps = [one for one in box.of(0) if isinstance(one, Progressed) and one.stage is Stage.MEASURING]
    assert (steps[-1].completed, steps[-1].total) == (12, 12)
    assert models_on_the_device(box, 1) == []


def test_a_model_that_was_there_stays_and_its_load_is_not_measured(model: Model) -> None:
    box = carried_out(LoadOrder(order_id="load-1", model=model), order(model, load_runs=1))
    failed = box.of(1)[-1]
    assert isinstance(failed, RunFailed)
    assert failed.reason == ErrorReason.ILLEGAL_STATE
    assert models_on_the_device(box, 2) == [model.id]
    box = carried_out(LoadOrder(order_id="load-1", model=model), order(model))
    assert report_in(box, 1).load is None
    assert models_on_the_device(box, 2) == [model.id]


def test_compiling_is_no_part_of_a_step(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    def backend(graph: Any, inputs: object) -> Any:
        return graph.forward

    monkeypatch.setattr(inductor, "BACKENDS", [backend])
    report = report_in(carried_out(order(model, steps=3, execution={"ways": {"compile": True}})))
    assert report.way.ways.compile
    (case,) = report.cases
    assert case.run is not None
    assert case.step is not None
    assert case.step.sample_count == 3
    # Without a run to warm up, the run has the compilation; no step has it.
    assert 4 * case.step.longest_s < case.run.shortest_s


@pytest.mark.parametrize("stage", [Stage.LOADING, Stage.MEASURING])
def test_a_cancelled_benchmark_leaves_the_device_clean(model: Model, stage: Stage) -> None:
    def unwanted(report: Report) -> bool:
        return isinstance(report, Progressed) and report.stage is stage

    box = carried_out(order(model, runs=50), unwanted=unwanted)
    stopped = box.of(0)[-1]
    assert isinstance(stopped, RunStopped)
    assert (stopped.stop, stopped.stage) == (STOP, Stage.MEASURING)
    assert 0 <= stopped.latency_s < 30
    assert not any(isinstance(one, ModelBenchmarked) for one in box.of(0))
    assert models_on_the_device(box, 1) == []


def test_a_case_that_does_not_fit_is_in_the_report_and_stops_nothing(
    model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = Run.prepare

    def prepare(run: Run, keep_on: KeepOn) -> None:
        if run.resolved.width_px > 64:
            raise ResourceExhausted("too large", ErrorReason.DEVICE_OUT_OF_MEMORY)
        plain(run, keep_on)

    monkeypatch.setattr(Run, "prepare", prepare)
    report = report_in(carried_out(order(model, sizes=((128, 64), SMALL))))
    large, small = report.cases
    assert large.failure is not None
    assert large.failure.reason is ErrorReason.DEVICE_OUT_OF_MEMORY
    assert (large.run, large.step, large.images_per_s) == (None, None, None)
    assert small.failure is None
